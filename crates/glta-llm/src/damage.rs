//! Recognises files whose content does not match their name.

/// Number of bytes that [`recognise`] reads.
pub(crate) const LOOKED_AT: usize = 512;

/// Returns a message with advice if the first bytes of a file show that it is a Git LFS pointer, a
/// web page, a server's message, or weights in an unsupported format. Returns `None` for all other
/// files.
pub(crate) fn recognise(start: &[u8]) -> Option<String> {
    let start = &start[..start.len().min(LOOKED_AT)];
    let bytes = start.trim_ascii_start();
    if bytes.is_empty() {
        return Some("the file is empty; download it again".into());
    }
    if bytes.starts_with(b"version https://git-lfs.github.com/spec") {
        let text = String::from_utf8_lossy(bytes);
        let size = text.lines().find_map(|line| line.strip_prefix("size "));
        let of = size.map_or(String::new(), |size| format!(" to {size} bytes"));
        return Some(format!(
            "this is a pointer of Git LFS{of}, not the file itself; fetch it with `git lfs pull`, \
             or download the file"
        ));
    }
    let format = match bytes {
        [b'<', ..] => {
            return Some(
                "this is an HTML or XML page, such as a server's error or login page, not the \
                 file; download it again"
                    .into(),
            );
        }
        [b'P', b'K', 3, 4, ..] => "a zip archive, as PyTorch saves its weights",
        [0x80, 2..=5, ..] => "a Python pickle",
        [b'G', b'G', b'U', b'F', ..] => "a GGUF file of llama.cpp",
        [0x1f, 0x8b, ..] => "a gzip archive",
        _ => return message(bytes),
    };
    Some(format!("this is {format}; weights are read as safetensors, settings as JSON"))
}

/// Returns the text of a short plain-text file, such as a server's error message.
fn message(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok().filter(|_| bytes.len() < LOOKED_AT)?;
    let line = text.lines().next()?.trim_end();
    let plain = line.contains(' ')
        && line.starts_with(|c: char| c.is_alphabetic())
        && !text.chars().any(|c| c.is_control() && !c.is_whitespace());
    plain.then(|| {
        format!("this is the text {line:?}, perhaps a server's message; download the file again")
    })
}

/// Describes the problem of a safetensors file that could not be opened; `None` if only the header
/// is malformed.
pub(crate) fn safetensors(bytes: &[u8]) -> Option<String> {
    if let Some(what) = recognise(bytes) {
        return Some(what);
    }
    let incomplete = |promised: u64| {
        format!(
            "the file has {} bytes, but its header promises {promised}: an incomplete download; \
             fetch it again",
            bytes.len()
        )
    };
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Some(format!("the file has only {} bytes; download it again", bytes.len()));
    };
    let header = u64::from_le_bytes(*length);
    // The safetensors crate rejects longer headers in any file.
    if header > 100_000_000 {
        return None;
    }
    let Some(text) = rest.get(..header as usize) else {
        return rest.starts_with(b"{").then(|| incomplete(8 + header));
    };
    let json: serde_json::Value = serde_json::from_slice(text).ok()?;
    let ends = json.as_object()?.values().filter_map(|tensor| {
        let offsets = tensor.get("data_offsets")?.as_array()?;
        offsets.get(1)?.as_u64()
    });
    let promised = ends.max()?.checked_add(8 + header)?;
    (promised > bytes.len() as u64).then(|| incomplete(promised))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_checkpoint_file_is_called_by_its_name() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 389\n";
        let cases: [(&[u8], &[&str]); 8] = [
            (pointer.as_bytes(), &["Git LFS", "389 bytes", "git lfs pull"]),
            (b"\n<!DOCTYPE html><html>", &["HTML"]),
            (b"", &["empty"]),
            (b" \n", &["empty"]),
            (b"Invalid username or password.", &["\"Invalid username or password.\""]),
            (b"PK\x03\x04rest", &["PyTorch"]),
            (b"GGUF\x03\x00", &["GGUF"]),
            (b"\x80\x02}q", &["pickle"]),
        ];
        for (bytes, parts) in cases {
            let what = recognise(bytes).unwrap();
            assert!(parts.iter().all(|part| what.contains(part)), "{what}");
        }
        assert_eq!(recognise(b"{\"a\": 1}"), None);
        assert_eq!(recognise(&200u64.to_le_bytes()), None);
    }

    #[test]
    fn short_safetensors_files_are_incomplete_downloads() {
        let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend([0; 8]);
        assert_eq!(safetensors(&file), None);
        for len in [file.len() - 1, 20, 9, 3] {
            let what = safetensors(&file[..len]).unwrap();
            let expected =
                format!("the file has {}{len} bytes", if len < 8 { "only " } else { "" });
            assert!(what.starts_with(&expected), "{what}");
        }
        assert_eq!(safetensors(&[0xff; 40]), None);
    }
}
