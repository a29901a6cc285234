// Runs kernels on the host. Every buffer ends at an inaccessible page, and results and shared
// memory start as NaN. The threads run twice, in ascending and in descending order, warp by warp;
// both orders must give the same result.
#include "emulate.h"

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace emulate {
OF_THIS_DEVICE uint3 block_index, block_size, thread_index;

namespace {
struct Kernel {
    unsigned threads, arguments;
    Call call;
};
std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

// Memory that ends at the end of its last page; the next page is inaccessible.
class Fenced {
  public:
    explicit Fenced(std::size_t bytes) : bytes_((bytes + 15) / 16 * 16) {
        const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE));
        size_ = (bytes_ + page - 1) / page * page + page;
        pages_ = static_cast<unsigned char *>(
            mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (pages_ == MAP_FAILED || mprotect(pages_ + size_ - page, page, PROT_NONE) != 0) {
            std::fputs("emulate: no memory\n", stderr);
            std::abort();
        }
        data_ = pages_ + size_ - page - bytes_;
        poison();
    }
    Fenced(Fenced &&other) noexcept { *this = std::move(other); }
    Fenced &operator=(Fenced &&other) noexcept {
        std::swap(pages_, other.pages_);
        std::swap(size_, other.size_);
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~Fenced() {
        if (pages_ != nullptr) {
            munmap(pages_, size_);
        }
    }
    // All ones is a NaN in every type.
    void poison() { std::memset(data_, 0xff, bytes_); }
    unsigned char *data() { return data_; }

  private:
    unsigned char *pages_ = nullptr, *data_ = nullptr;
    std::size_t size_ = 0, bytes_ = 0;
};

constexpr std::size_t STACK = 64 << 10;
constexpr unsigned WARP = 32;

struct Barrier {
    unsigned arrived = 0, round = 0;
};
using Operation = void (*)(Lanes &);
struct Warp {
    Barrier barrier;
    std::uint32_t values[WARP];
    Operation operation;
    Lanes lanes;
};
struct Copy {
    void *to;
    const void *from;
    bool exists;
};
struct Fibre {
    ucontext_t start;
    jmp_buf place;
    std::unique_ptr<unsigned char[]> stack;
    bool started = false, done = false;
    std::vector<Copy> copies;
};

constexpr unsigned MOST_THREADS = 1024;
OF_THIS_DEVICE Fibre *fibres;
OF_THIS_DEVICE Warp *warps;
OF_THIS_DEVICE Barrier block_barrier;
OF_THIS_DEVICE unsigned alive, current;
// Changes whenever a wait ends.
OF_THIS_DEVICE unsigned long progress;
OF_THIS_DEVICE jmp_buf scheduler;
OF_THIS_DEVICE Call running;
OF_THIS_DEVICE void *const *running_arguments;
OF_THIS_DEVICE unsigned char *shared_bytes;
OF_THIS_DEVICE std::size_t shared_length;

// Threads of the launches of one test; those that wait forever are left behind.
void power_up() {
    fibres = new Fibre[MOST_THREADS];
    warps = new Warp[MOST_THREADS / WARP];
}

void yield() {
    if (_setjmp(fibres[current].place) == 0) {
        _longjmp(scheduler, 1);
    }
    thread_index = {current, 0, 0};
}

void wait(Barrier &barrier, unsigned expected) {
    const unsigned round = barrier.round;
    if (++barrier.arrived == expected) {
        barrier.arrived = 0, barrier.round++, progress++;
    }
    while (barrier.round == round) {
        yield();
    }
}

// Runs the threads of one block after another, because starting a fibre needs a system call.
void body() {
    for (;;) {
        thread_index = {current, 0, 0};
        running(running_arguments);
        fibres[current].done = true, alive--, progress++;
        if (_setjmp(fibres[current].place) == 0) {
            _longjmp(scheduler, 1);
        }
    }
}

// Prints the name of the kernel, then lets the signal end the process.
OF_THIS_DEVICE const char *running_name;
void fatal(int signal) {
    const char *problem = signal == SIGSEGV ? " touched memory outside its buffers\n"
                                            : " ran into undefined behaviour\n";
    const char *name = running_name == nullptr ? "no kernel" : running_name;
    for (const char *part : {"emulate: ", name, problem}) {
        (void)!write(STDERR_FILENO, part, std::strlen(part));
    }
    std::signal(signal, SIG_DFL);
}

bool watch() {
    struct sigaction action = {};
    action.sa_handler = fatal, action.sa_flags = SA_ONSTACK;
    return sigaction(SIGSEGV, &action, nullptr) == 0 && sigaction(SIGILL, &action, nullptr) == 0;
}

// Runs a thread until it waits.
void resume(unsigned thread) {
    current = thread;
    Fibre &fibre = fibres[thread];
    if (fibre.done || _setjmp(scheduler) != 0) {
        return;
    }
    if (fibre.started) {
        _longjmp(fibre.place, 1);
    }
    fibre.started = true;
    getcontext(&fibre.start);
    fibre.stack.reset(new unsigned char[STACK]);
    fibre.start.uc_stack.ss_sp = fibre.stack.get();
    fibre.start.uc_stack.ss_size = STACK;
    fibre.start.uc_link = nullptr;
    makecontext(&fibre.start, body, 0);
    setcontext(&fibre.start);
}

// Runs one block; returns false if its threads wait for each other forever. Every warp runs as far
// ahead of the others as barriers allow.
bool run_block(bool falling) {
    const unsigned threads = block_size.x;
    alive = threads, block_barrier = {};
    std::fill_n(warps, threads / WARP, Warp{});
    for (unsigned t = 0; t < threads; t++) {
        fibres[t].done = false;
        fibres[t].copies.clear();
    }
    while (alive > 0) {
        const unsigned long round = progress;
        for (unsigned warp = 0; warp < threads; warp += WARP) {
            unsigned long before;
            do {
                before = progress;
                for (unsigned i = warp; i < warp + WARP; i++) {
                    resume(falling ? threads - 1 - i : i);
                }
            } while (progress != before);
        }
        if (progress == round) {
            power_up();
            return false;
        }
    }
    return true;
}
} // namespace

void add(const char *name, unsigned threads, unsigned arguments, Call call) {
    kernels()[name] = {threads, arguments, call};
}
unsigned char *shared() { return shared_bytes; }
// As on the device, barriers do not wait for threads that have returned.
void synchronise() { wait(block_barrier, alive); }
std::uint32_t exchange(std::uint32_t value, unsigned mask) {
    Warp &warp = warps[current / WARP];
    const unsigned lane = current % WARP;
    warp.values[lane] = value;
    wait(warp.barrier, WARP);
    const std::uint32_t got = warp.values[lane ^ mask];
    wait(warp.barrier, WARP);
    return got;
}
void together(std::uint32_t *words, unsigned count, Operation operation) {
    Warp &warp = warps[current / WARP];
    std::uint32_t *own = warp.lanes.words[current % WARP];
    std::memcpy(own, words, count * sizeof *words);
    if (warp.barrier.arrived == 0) {
        warp.operation = operation;
    } else if (warp.operation != operation) {
        __builtin_trap(); // Lanes of one warp in different places.
    }
    if (warp.barrier.arrived == WARP - 1) {
        operation(warp.lanes);
    }
    wait(warp.barrier, WARP);
    std::memcpy(words, own, count * sizeof *words);
}
void check_shared(const void *place) {
    const auto at = reinterpret_cast<std::uintptr_t>(place);
    const auto start = reinterpret_cast<std::uintptr_t>(shared_bytes);
    if (at % 16 != 0 || at < start || at + 16 > start + shared_length) {
        __builtin_trap();
    }
}
void copy_later(void *to, const void *from, bool exists) {
    if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0) {
        __builtin_trap();
    }
    std::memset(to, 0xff, 16);
    fibres[current].copies.push_back({to, from, exists});
}
void await_copies() {
    for (const Copy &copy : fibres[current].copies) {
        copy.exists ? std::memcpy(copy.to, copy.from, 16) : std::memset(copy.to, 0, 16);
    }
    fibres[current].copies.clear();
}
} // namespace emulate

// Kinds of arguments: a scalar, and buffers that are read, written completely, or modified in
// place. `value` is the scalar's bits or the buffer's address.
enum Kind : std::uint64_t { SCALAR, IN, OUT, IN_OUT };
struct Argument {
    std::uint64_t kind, value, bytes;
};

// Launches a kernel; returns null, or an error message.
extern "C" const char *emulate_launch(const char *name, const std::uint32_t *grid,
                                      std::uint32_t threads, std::uint64_t shared_size,
                                      const Argument *arguments, std::uint64_t count) {
    using namespace emulate;
    const auto found = kernels().find(name);
    if (found == kernels().end()) {
        return "no such kernel";
    }
    const Kernel &kernel = found->second;
    if (count != kernel.arguments) {
        return "another number of arguments";
    }
    if (threads == 0 || threads % WARP != 0 || threads > kernel.threads ||
        threads > MOST_THREADS) {
        return "a block that the kernel was not made for";
    }
    if (grid[0] == 0 || grid[1] == 0 || grid[0] > 0x7fffffff || grid[1] > 65535 ||
        shared_size > (99 << 10)) {
        return "a launch that a device refuses";
    }
    if (fibres == nullptr) {
        power_up();
    }
    Fenced shared_memory(shared_size);
    shared_bytes = shared_memory.data(), shared_length = shared_size;
    block_size = {threads, 1, 1};
    std::vector<std::vector<Fenced>> runs(2);
    for (unsigned run = 0; run < 2; run++) {
        std::vector<std::uint64_t> values(count);
        std::vector<void *> places(count);
        std::vector<std::size_t> fenced(count);
        for (std::size_t i = 0; i < count; i++) {
            values[i] = arguments[i].value, places[i] = &values[i];
            runs[run].emplace_back(arguments[i].kind == SCALAR ? 0 : arguments[i].bytes);
            if (arguments[i].kind == SCALAR) {
                continue;
            }
            unsigned char *data = runs[run][i].data();
            if (arguments[i].kind != OUT) {
                std::memcpy(data, reinterpret_cast<void *>(arguments[i].value), arguments[i].bytes);
            }
            values[i] = reinterpret_cast<std::uint64_t>(data);
        }
        static const bool watched = watch();
        if (!watched) {
            return "signals cannot be watched";
        }
        running_name = name;
        running = kernel.call, running_arguments = places.data();
        for (unsigned y = 0; y < grid[1]; y++) {
            for (unsigned x = 0; x < grid[0]; x++) {
                block_index = {x, y, 0};
                shared_memory.poison();
                if (!run_block(run == 1)) {
                    return "threads wait for each other for ever";
                }
            }
        }
    }
    for (std::size_t i = 0; i < count; i++) {
        const Argument &argument = arguments[i];
        if (argument.kind == OUT || argument.kind == IN_OUT) {
            if (std::memcmp(runs[0][i].data(), runs[1][i].data(), argument.bytes) != 0) {
                return "the result depends on the order of the threads";
            }
            std::memcpy(reinterpret_cast<void *>(argument.value), runs[0][i].data(),
                        argument.bytes);
        }
    }
    return nullptr;
}
