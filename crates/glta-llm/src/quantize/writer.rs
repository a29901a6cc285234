use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use glta_core::write_whole;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value, json};

use super::options::QuantizeOptions;
use crate::checkpoint::INDEX;
use crate::error::{Error, Result};
use crate::json::read_object;
use crate::tokenizer::is_companion;

/// Size in bytes at which a new shard starts.
const SHARD_BYTES: usize = 2 << 30;

/// A writer of tensors to one file or several shards. Files get their final names after everything
/// has been written.
pub(super) struct Writer {
    dir: PathBuf,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    bytes: usize,
    total: usize,
    /// Path of the temporary file and tensor names of each written shard.
    shards: Vec<(PathBuf, Vec<String>)>,
}

impl Writer {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        // Fail now, rather than after hours, if the folder is not writable.
        let probe = dir.join("model-0.safetensors.tmp");
        fs::File::create(&probe).map_err(Error::io(&probe))?;
        fs::remove_file(&probe).map_err(Error::io(&probe))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            tensors: BTreeMap::new(),
            bytes: 0,
            total: 0,
            shards: Vec::new(),
        })
    }

    pub(super) fn add(
        &mut self,
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: Vec<u8>,
    ) -> Result<()> {
        self.bytes += bytes.len();
        self.total += bytes.len();
        self.tensors.insert(name, (dtype, shape, bytes));
        if self.bytes >= SHARD_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let path = self.dir.join(format!("model-{}.safetensors.tmp", self.shards.len()));
        let invalid = |name: &str, e: &dyn std::fmt::Display| Error::tensor(&path, name, e);
        let mut views = Vec::new();
        for (name, (dtype, shape, bytes)) in &self.tensors {
            let view =
                TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| invalid(name, &e))?;
            views.push((name.as_str(), view));
        }
        // Other readers require this entry.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        // The safetensors crate creates files that only the owner can read. Use the default mode
        // instead.
        let plain = fs::File::create(&path).and_then(|file| file.metadata());
        let permissions = plain.map_err(Error::io(&path))?.permissions();
        safetensors::serialize_to_file(views, Some(metadata), &path)
            .map_err(|e| Error::Safetensors { path: path.clone(), problem: e.to_string() })?;
        fs::set_permissions(&path, permissions).map_err(Error::io(&path))?;
        let names = std::mem::take(&mut self.tensors).into_keys().collect();
        self.shards.push((path, names));
        self.bytes = 0;
        Ok(())
    }

    /// Renames the shards, and adds the configuration and the tokenizer of `source`.
    pub(super) fn finish(
        mut self,
        source: &Path,
        out: &Path,
        options: &QuantizeOptions,
    ) -> Result<()> {
        if !self.tensors.is_empty() {
            self.flush()?;
        }
        copy_companions(source, out)?;
        let block = quantization_block(options);
        let mut config = read_object(&source.join("config.json"))?;
        config.insert("quantization_config".into(), block.clone());
        write_json(&out.join("config.json"), &Value::Object(config))?;
        write_json(&out.join("quantize_config.json"), &block)?;
        let count = self.shards.len();
        let mut weight_map = Map::new();
        for (i, (temporary, names)) in self.shards.iter().enumerate() {
            let name = match count {
                1 => "model.safetensors".to_string(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            let path = out.join(&name);
            fs::rename(temporary, &path).map_err(Error::io(&path))?;
            weight_map
                .extend(names.iter().map(|tensor| (tensor.clone(), Value::from(name.as_str()))));
        }
        let index = out.join(INDEX);
        if count > 1 {
            let json = json!({"metadata": {"total_size": self.total}, "weight_map": weight_map});
            return write_json(&index, &json);
        }
        match fs::remove_file(&index) {
            // This shard belongs to an earlier, larger model in the same folder.
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io(&index)(e)),
        }
    }
}

fn quantization_block(options: &QuantizeOptions) -> Value {
    json!({
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": options.bits,
        "group_size": options.group_size.map_or(-1, |g| g as i64),
        "desc_act": options.desc_act,
        "sym": options.sym,
        "lm_head": false,
        "pack_dtype": "int32",
        "damp_percent": options.damp_percent,
        "true_sequential": true,
        "meta": {"quantizer": [concat!("glta-llm:", env!("CARGO_PKG_VERSION"))]},
    })
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_whole(path, format!("{value:#}\n").as_bytes()).map_err(Error::io(path))
}

/// Copies the files of the tokenizer, the generation settings and the chat template.
fn copy_companions(source: &Path, out: &Path) -> Result<()> {
    for entry in fs::read_dir(source).map_err(Error::io(source))? {
        let entry = entry.map_err(Error::io(source))?;
        if entry.file_name().to_str().is_some_and(is_companion) && entry.path().is_file() {
            let to = out.join(entry.file_name());
            if to.exists() && fs::canonicalize(&to).ok() == fs::canonicalize(entry.path()).ok() {
                continue;
            }
            // Copy the contents but not the permissions, because the source may be read-only.
            let bytes = fs::read(entry.path()).map_err(Error::io(entry.path()))?;
            write_whole(&to, &bytes).map_err(Error::io(&to))?;
        }
    }
    Ok(())
}
