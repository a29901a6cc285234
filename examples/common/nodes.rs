//! LightGCN's embeddings in a folder, for the runs that share them.

use std::path::Path;

use candle_core::{Device, Tensor};
use glta::graph::NodeEmbeddings;

use super::Result;

const FILE: &str = "nodes.safetensors";

pub fn save(dir: &Path, nodes: &NodeEmbeddings) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let tensor = |values: &ndarray::Array2<f32>| {
        Tensor::from_vec(values.iter().copied().collect(), values.dim(), &Device::Cpu)
    };
    let tensors = [("users", tensor(&nodes.users)?), ("items", tensor(&nodes.items)?)];
    let file = tempfile::NamedTempFile::new_in(dir)?;
    candle_core::safetensors::save(&tensors.into_iter().collect(), file.path())?;
    file.persist(dir.join(FILE)).map_err(|e| e.error)?;
    Ok(())
}

pub fn load(dir: &Path) -> Result<Option<NodeEmbeddings>> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
    let array = |name: &str| -> Result<ndarray::Array2<f32>> {
        let tensor = tensors.get(name).ok_or_else(|| format!("{}: no {name}", path.display()))?;
        let values = tensor.flatten_all()?.to_vec1()?;
        Ok(ndarray::Array2::from_shape_vec(tensor.dims2()?, values)?)
    };
    Ok(Some(NodeEmbeddings { users: array("users")?, items: array("items")? }))
}
