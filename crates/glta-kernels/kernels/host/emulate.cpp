// Runs kernels on the host. Every buffer ends at an inaccessible page, and results and shared
// memory start as NaN. The threads run three times: in ascending and in descending order, warp by
// warp, and in a random order that changes whenever they wait. Blocks run one after another, in the
// same orders, but in the random run some blocks at the same time. All orders must give the same
// result.
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
OF_THIS_DEVICE uint3 block_index, block_size, grid_size, thread_index;

namespace {
struct Kernel {
    std::string file;
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
    Fenced() = default;
    // Data whose address has the same remainder by 16 as `like`.
    Fenced(std::size_t bytes, std::uint64_t like) : bytes_((bytes + 31) / 16 * 16) {
        const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE));
        size_ = (bytes_ + page - 1) / page * page + page;
        pages_ = static_cast<unsigned char *>(
            mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (pages_ == MAP_FAILED || mprotect(pages_ + size_ - page, page, PROT_NONE) != 0) {
            std::fputs("emulate: no memory\n", stderr);
            std::abort();
        }
        unsigned char *end = pages_ + size_ - page;
        const std::uint64_t after = (reinterpret_cast<std::uint64_t>(end) - bytes - like) % 16;
        data_ = end - bytes - after;
        bytes_ = bytes + after;
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
    unsigned group;
};
struct Fibre {
    ucontext_t start;
    jmp_buf place;
    std::unique_ptr<unsigned char[]> stack;
    bool started = false, done = false;
    std::vector<Copy> copies;
    unsigned copy_groups = 0; // ended ones
    unsigned fenced = 0;      // one more than the round of the block's barrier at the last fence
};

constexpr unsigned MOST_THREADS = 1024;
// Blocks that run at the same time.
constexpr unsigned RESIDENT = 3;
struct Block {
    uint3 index;
    Barrier barrier;
    unsigned alive = 0;
    Fenced shared;
    std::vector<Fibre> fibres{MOST_THREADS};
    std::vector<Warp> warps{MOST_THREADS / WARP};
};
OF_THIS_DEVICE Block *blocks;
// The block and the thread that run.
OF_THIS_DEVICE Block *block;
OF_THIS_DEVICE unsigned current;
// What the kernel did wrong.
OF_THIS_DEVICE const char *violation;
// Changes whenever a wait ends.
OF_THIS_DEVICE unsigned long progress;
// Whether a thread let others run without waiting.
OF_THIS_DEVICE bool yielded;
OF_THIS_DEVICE jmp_buf scheduler;
OF_THIS_DEVICE Call running;
OF_THIS_DEVICE void *const *running_arguments;
OF_THIS_DEVICE std::size_t shared_length;

// Blocks of the launches of one test; threads that wait forever are left behind.
void power_up() { blocks = new Block[RESIDENT]; }

enum Order { ASCENDING, DESCENDING, RANDOM };
OF_THIS_DEVICE Order order;
OF_THIS_DEVICE std::uint64_t random_state;
// A number below `end` (xorshift).
unsigned random_below(unsigned end) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return unsigned((random_state >> 32) % end);
}
// The numbers below `count` in the order of this run.
std::vector<unsigned> in_order(unsigned count) {
    std::vector<unsigned> all(count);
    for (unsigned i = 0; i < count; i++) {
        all[i] = order == DESCENDING ? count - 1 - i : i;
    }
    for (unsigned i = count; order == RANDOM && i > 1; i--) {
        std::swap(all[i - 1], all[random_below(i)]);
    }
    return all;
}

void yield() {
    if (_setjmp(block->fibres[current].place) == 0) {
        _longjmp(scheduler, 1);
    }
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
        running(running_arguments);
        block->fibres[current].done = true, block->alive--, progress++;
        if (_setjmp(block->fibres[current].place) == 0) {
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
void resume(Block &its, unsigned thread) {
    block = &its, current = thread;
    block_index = its.index, thread_index = {thread, 0, 0};
    Fibre &fibre = its.fibres[thread];
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

void start(Block &next, unsigned index) {
    const unsigned threads = block_size.x;
    next.index = {index % grid_size.x, index / grid_size.x, 0};
    next.alive = threads, next.barrier = {};
    next.shared.poison();
    std::fill_n(next.warps.begin(), threads / WARP, Warp{});
    for (unsigned t = 0; t < threads; t++) {
        Fibre &fibre = next.fibres[t];
        fibre.done = false, fibre.copy_groups = 0, fibre.fenced = 0;
        fibre.copies.clear();
    }
}

// Runs all blocks; returns false if threads wait for each other forever. In order, every warp runs
// as far ahead of the others as barriers allow; in random order, threads of some blocks mix.
bool run_blocks() {
    const unsigned threads = block_size.x, resident = order == RANDOM ? RESIDENT : 1;
    const std::vector<unsigned> all = in_order(grid_size.x * grid_size.y);
    auto next = all.begin();
    for (;;) {
        unsigned alive = 0;
        for (unsigned b = 0; b < resident; b++) {
            if (blocks[b].alive == 0 && next != all.end()) {
                start(blocks[b], *next++);
            }
            alive += blocks[b].alive;
        }
        if (alive == 0) {
            return true;
        }
        const unsigned long round = progress;
        if (order == RANDOM) {
            yielded = false;
            for (unsigned i : in_order(resident * threads)) {
                if (blocks[i / threads].alive > 0) {
                    resume(blocks[i / threads], i % threads);
                }
            }
        }
        for (unsigned warp = 0; order != RANDOM && warp < threads; warp += WARP) {
            unsigned long before;
            do {
                before = progress;
                for (unsigned i = warp; i < warp + WARP; i++) {
                    resume(blocks[0], order == DESCENDING ? threads - 1 - i : i);
                }
            } while (progress != before);
        }
        if (progress == round && !(order == RANDOM && yielded)) {
            power_up();
            return false;
        }
    }
}
} // namespace

void add(const char *name, const char *file, unsigned threads, unsigned arguments, Call call) {
    kernels()[name] = {file, threads, arguments, call};
}
void perhaps_yield() {
    if (order == RANDOM && random_below(2) == 0) {
        yielded = true;
        yield();
    }
}
void fence() {
    block->fibres[current].fenced = block->barrier.round + 1;
    perhaps_yield();
}
// Other blocks act on what an atomic operation says, so all that this block wrote before must be
// visible to them: every thread has fenced its own, and then waited for the others.
void check_fences() {
    for (unsigned t = 0; t < block_size.x; t++) {
        const Fibre &fibre = block->fibres[t];
        if (!fibre.done && (block->barrier.round == 0 || fibre.fenced != block->barrier.round)) {
            violation = "an atomic operation before which a thread has not fenced its writes";
        }
    }
    perhaps_yield();
}
unsigned char *shared() { return block->shared.data(); }
// As on the device, barriers do not wait for threads that have returned.
void synchronise() { wait(block->barrier, block->alive); }
std::uint32_t exchange(std::uint32_t value, unsigned mask) {
    Warp &warp = block->warps[current / WARP];
    const unsigned lane = current % WARP;
    warp.values[lane] = value;
    wait(warp.barrier, WARP);
    const std::uint32_t got = warp.values[lane ^ mask];
    wait(warp.barrier, WARP);
    return got;
}
void together(std::uint32_t *words, unsigned count, Operation operation) {
    Warp &warp = block->warps[current / WARP];
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
    const auto start = reinterpret_cast<std::uintptr_t>(block->shared.data());
    if (at % 16 != 0 || at < start || at + 16 > start + shared_length) {
        __builtin_trap();
    }
}
void copy_later(void *to, const void *from, bool exists) {
    if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0) {
        __builtin_trap();
    }
    std::memset(to, 0xff, 16);
    Fibre &fibre = block->fibres[current];
    fibre.copies.push_back({to, from, exists, fibre.copy_groups});
}
static void finish_copies(unsigned end) {
    std::vector<Copy> &copies = block->fibres[current].copies;
    const auto later = std::find_if(copies.begin(), copies.end(),
                                    [end](const Copy &copy) { return copy.group >= end; });
    for (auto copy = copies.begin(); copy != later; ++copy) {
        copy->exists ? std::memcpy(copy->to, copy->from, 16) : std::memset(copy->to, 0, 16);
    }
    copies.erase(copies.begin(), later);
}
void await_copies() { finish_copies(block->fibres[current].copy_groups + 1); }
void end_copies() { block->fibres[current].copy_groups++; }
void await_copies_but(unsigned groups) {
    const unsigned ended = block->fibres[current].copy_groups;
    finish_copies(ended > groups ? ended - groups : 0);
}
} // namespace emulate

// Kinds of arguments: a scalar, buffers that are read, written completely, or modified in place,
// and a buffer that is read and has addresses of regions. `value` is the scalar's bits or the
// buffer's address.
enum Kind : std::uint64_t { SCALAR, IN, OUT, IN_OUT, TABLE };
struct Argument {
    std::uint64_t kind, value, bytes;
};
// Memory whose address is in a table; it is modified in place.
struct Region {
    std::uint64_t address, bytes;
};

namespace emulate {
namespace {
// The memory of a run: arguments, then regions.
struct Run {
    std::vector<Fenced> buffers;
    std::vector<std::uint64_t> values;

    Run(const Argument *arguments, std::size_t count, const Region *regions,
        std::size_t region_count) {
        for (std::size_t i = 0; i < count; i++) {
            const auto [kind, value, bytes] = arguments[i];
            if (kind == SCALAR) {
                buffers.emplace_back();
                values.push_back(value);
                continue;
            }
            unsigned char *data = buffers.emplace_back(bytes, value).data();
            if (kind != OUT) {
                std::memcpy(data, reinterpret_cast<void *>(value), bytes);
            }
            values.push_back(reinterpret_cast<std::uint64_t>(data));
        }
        for (std::size_t i = 0; i < region_count; i++) {
            const auto [address, bytes] = regions[i];
            unsigned char *data = buffers.emplace_back(bytes, address).data();
            std::memcpy(data, reinterpret_cast<void *>(address), bytes);
            for (std::size_t a = 0; a < count; a++) {
                for (std::size_t at = 0; arguments[a].kind == TABLE && at < arguments[a].bytes;
                     at += 8) {
                    if (std::memcmp(buffers[a].data() + at, &address, 8) == 0) {
                        std::memcpy(buffers[a].data() + at, &data, 8);
                    }
                }
            }
        }
    }
};
} // namespace
} // namespace emulate

// Launches a kernel of a file; returns null, or an error message.
extern "C" const char *emulate_launch(const char *name, const char *file, const std::uint32_t *grid,
                                      std::uint32_t threads, std::uint64_t shared_size,
                                      const Argument *arguments, std::uint64_t count,
                                      const Region *regions, std::uint64_t region_count) {
    using namespace emulate;
    const auto found = kernels().find(name);
    if (found == kernels().end()) {
        return "no such kernel";
    }
    const Kernel &kernel = found->second;
    if (kernel.file != file) {
        return "the kernel is in another file";
    }
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
    // A written buffer has no other name.
    for (std::size_t i = 0; i < count; i++) {
        for (std::size_t j = 0; j < count; j++) {
            const Argument &a = arguments[i], &b = arguments[j];
            const bool written = a.kind == OUT || a.kind == IN_OUT;
            if (i != j && written && b.kind != SCALAR && a.value < b.value + b.bytes &&
                b.value < a.value + a.bytes) {
                return "a result overlaps another argument";
            }
        }
    }
    if (blocks == nullptr) {
        power_up();
    }
    for (unsigned b = 0; b < RESIDENT; b++) {
        blocks[b].shared = Fenced(shared_size, 0);
    }
    shared_length = shared_size, violation = nullptr;
    block_size = {threads, 1, 1}, grid_size = {grid[0], grid[1], 1};
    static const bool watched = watch();
    if (!watched) {
        return "signals cannot be watched";
    }
    std::vector<Run> runs;
    for (Order each : {ASCENDING, DESCENDING, RANDOM}) {
        Run &run = runs.emplace_back(arguments, count, regions, region_count);
        std::vector<void *> places(count);
        for (std::size_t i = 0; i < count; i++) {
            places[i] = &run.values[i];
        }
        running_name = name;
        running = kernel.call, running_arguments = places.data();
        order = each, random_state = 0x9e3779b97f4a7c15u;
        if (!run_blocks()) {
            return "threads wait for each other for ever";
        }
    }
    if (violation != nullptr) {
        return violation;
    }
    const auto same = [&](std::size_t i, std::size_t bytes) {
        const void *first = runs[0].buffers[i].data();
        return std::memcmp(first, runs[1].buffers[i].data(), bytes) == 0 &&
               std::memcmp(first, runs[2].buffers[i].data(), bytes) == 0;
    };
    for (std::size_t i = 0; i < count + region_count; i++) {
        const bool region = i >= count;
        if (!region && arguments[i].kind != OUT && arguments[i].kind != IN_OUT) {
            continue;
        }
        const std::uint64_t to = region ? regions[i - count].address : arguments[i].value;
        const std::uint64_t bytes = region ? regions[i - count].bytes : arguments[i].bytes;
        if (!same(i, bytes)) {
            return "the result depends on the order of the threads";
        }
        std::memcpy(reinterpret_cast<void *>(to), runs[0].buffers[i].data(), bytes);
    }
    return nullptr;
}
