use std::panic::AssertUnwindSafe;

/// Calls a function of the `tokenizers` crate and turns a panic into an error. The crate panics on
/// some inconsistent files.
pub(super) fn guarded<T>(
    call: impl FnOnce() -> tokenizers::Result<T>,
) -> std::result::Result<T, String> {
    // The call is unwind safe: the tokenizer is only read, or is dropped after an error.
    std::panic::catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("its parts contradict each other: {}", text.unwrap_or("panicked")).into())
        })
        .map_err(|e| e.to_string())
}
