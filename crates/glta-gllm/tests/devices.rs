//! Compares loss, gradients and ranking on a device with the CPU. The first test uses the CPU as
//! the device. With the feature `cuda` and `-- --include-ignored` the same comparison runs on a
//! GPU.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "cuda")]
#[path = "support/gpu.rs"]
mod gpu;

use candle_core::{DType, Device, Tensor, Var};
use glta_gllm::{Decoder, GllmHead};

fn values(tensor: &Tensor) -> Vec<f32> {
    let host = tensor.to_device(&Device::Cpu).unwrap();
    host.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn hidden(device: &Device) -> Var {
    let data: Vec<f32> = (0..12 * 24).map(|i| (i as f32 * 0.7).sin()).collect();
    Var::from_vec(data, (12, 24), device).unwrap()
}

fn loss_and_lists_equal_the_cpu(device: &Device) {
    const ITEMS: usize = 3001;
    let targets: Vec<Vec<u32>> =
        (0..12).map(|r| (0..r % 4).map(|i| 100 * i + r).collect()).collect();
    let masked: Vec<Vec<u32>> = (0..12).map(|r| vec![1000 + r, 2000 + 3 * r]).collect();
    let run = |device: &Device| {
        let head = GllmHead::free(24, ITEMS, true, 7, device).unwrap();
        let z = hidden(device);
        let offset: Vec<f32> = (0..12 * ITEMS).map(|i| (i as f32 * 0.3).cos()).collect();
        let offset = Tensor::from_vec(offset, (12, ITEMS), device).unwrap();
        let loss = head.loss(&z, None, Some(&offset), &targets, &masked).unwrap();
        let gradients = loss.backward().unwrap();
        let mut parameters = glta_projector::Parameters::new();
        head.collect("head", false, &mut parameters);
        let mut all = vec![values(&loss), values(gradients.get(&z).unwrap())];
        all.extend(parameters.values().map(|var| values(gradients.get(var).unwrap())));
        let lists: Vec<_> = [Decoder::Parallel, Decoder::FirstLogit, Decoder::MeanSlots]
            .into_iter()
            .flat_map(|decoder| head.rank(&z, None, 3, &masked[..4], 20, decoder).unwrap())
            .map(|list| list.iter().map(|r| r.item).collect::<Vec<_>>())
            .collect();
        (all, lists)
    };
    let ((got, lists), (expected, expected_lists)) = (run(device), run(&Device::Cpu));
    assert_eq!(lists, expected_lists);
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got.len(), expected.len());
        for (a, b) in got.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1e-2), "{a} {b}");
        }
    }
}

mod on_the_cpu {
    #[test]
    fn loss_and_lists_equal_the_cpu() {
        super::loss_and_lists_equal_the_cpu(&candle_core::Device::Cpu);
    }
}

#[cfg(feature = "cuda")]
mod on_a_gpu {
    use crate::gpu;

    #[test]
    #[ignore = "needs an NVIDIA GPU; run with --ignored"]
    fn loss_and_lists_equal_the_cpu() {
        gpu::devices().iter().for_each(super::loss_and_lists_equal_the_cpu);
    }
}
