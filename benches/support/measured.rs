//! Arguments and memory of benches without criterion.

/// The value after `name` on the command line.
pub(crate) fn argument(name: &str) -> Option<String> {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == name)?;
    args.get(at + 1).cloned()
}

/// Peak resident memory of the process, in MB.
pub(crate) fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kb = line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse::<f64>().ok());
    kb.unwrap_or_default() / 1e3
}
