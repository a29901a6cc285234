//! Recorded steps of decoding against direct launches.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::{DType, Device, Tensor};

use super::caches::Caches;
use super::call::Call;
use super::decoder::Decoder;
use super::device::Cuda;
use super::elementwise;
use super::keys::Keys;
use super::linear::Linear;
use super::norm::RmsNorm;
use super::rotary::Rotary;
use super::tests::{Counting, quantized, random, rotary, values};
use super::tokens::Tokens;
use crate::backend::{Backend, Linear as _, Next};
use crate::error::Result;
use crate::heads::Heads;
use crate::precision::Precision;
use crate::sequences::Sequences;
use crate::weights::{Arena, Matrix};

const HEADS: Heads = Heads { queries: 4, keys: 2, dim: 16, window: None };
const HIDDEN: usize = 64;
const VOCAB: usize = 50;
const LAYERS: usize = 2;

/// A model of a few layers with random weights.
struct Model {
    a: Cuda,
    embedding: Tensor,
    layers: Vec<[Linear; 4]>,
    norm: RmsNorm,
    final_norm: RmsNorm,
    output: Linear,
    rotary: Arc<Rotary>,
}

impl Model {
    fn new(a: &Cuda, shuffled: bool) -> Self {
        let layer = |outputs: &[usize], inputs, seed: usize| {
            let part = |(i, &n): (usize, &usize)| {
                (quantized(4, (n, inputs), 32, shuffled, true, (seed + i) as u64), None)
            };
            a.linear(outputs.iter().enumerate().map(part).collect()).unwrap()
        };
        let dense = |seed| {
            let w = (random((VOCAB, HIDDEN), seed) * 0.5).unwrap();
            Arc::new(Matrix::dense_f32(&Arena::default(), VOCAB, HIDDEN, &values(&w)).unwrap())
        };
        let layers = (0..LAYERS).map(|i| {
            let seed = 10 * i;
            let gate_up = layer(&[96, 96], HIDDEN, seed + 5);
            [
                layer(&[64, 32, 32], HIDDEN, seed),
                layer(&[HIDDEN], 64, seed + 4),
                gate_up,
                layer(&[HIDDEN], 96, seed + 8),
            ]
        });
        Self {
            embedding: a.embedding(&dense(91)).unwrap(),
            layers: layers.collect(),
            norm: a.norm(vec![1.0; HIDDEN], 1e-5).unwrap(),
            final_norm: a.final_norm(vec![1.0; HIDDEN], 1e-5).unwrap(),
            output: a.output_layer(dense(92)).unwrap(),
            rotary: rotary(a, 512, HEADS.dim / 2),
            a: a.clone(),
        }
    }

    fn scores(
        &self,
        mut x: Tensor,
        tokens: &Tokens,
        caches: &mut Caches<'_>,
        shared: Option<&Keys>,
    ) -> Result<Tensor> {
        for (i, [qkv, o, gate_up, down]) in self.layers.iter().enumerate() {
            let projected = self.a.normed(&self.norm, qkv, &x)?;
            let out = self.a.attention_cached(&projected, HEADS, tokens, caches, i, shared)?;
            let middle = o.forward(&out, Some(&x))?;
            let h = self.a.gated(&self.norm, gate_up, &middle)?;
            x = down.forward(&h, Some(&middle))?;
            self.a.end_stage();
        }
        self.a.scores(&self.final_norm, &self.output, &x)
    }

    /// Caches of these lengths.
    fn texts(&self, lengths: &[usize], shared: usize) -> Vec<Keys> {
        let read = |(text, &len): (usize, &usize)| {
            let mut keys = self.a.keys(LAYERS, HEADS, false);
            if len > 0 {
                let sequences = Arc::new(Sequences::new(&[len], |_| shared));
                let tokens = self.a.tokens(&sequences, &self.rotary).unwrap();
                let mut caches = self.a.caches(&sequences, vec![&mut keys]).unwrap();
                let ids: Vec<u32> = (0..len).map(|i| ((i * 7 + text) % VOCAB) as u32).collect();
                let x = self.a.embed(&self.embedding, &ids).unwrap();
                self.scores(x, &tokens, &mut caches, None).unwrap();
            }
            keys
        };
        lengths.iter().enumerate().map(read).collect()
    }

    fn next<'a>(
        &'a self,
        ids: &'a [u32],
        sequences: &'a Sequences,
        keys: &'a mut [Keys],
        shared: Option<&'a Keys>,
    ) -> Next<'a, Cuda> {
        let keys = keys.iter_mut().collect();
        let (embedding, rotary) = (&self.embedding, &self.rotary);
        Next { ids, sequences, embedding, rotary, keys, shared, context: 512 }
    }

    /// Decodes a token of each text.
    fn decode(
        &self,
        decoder: &mut Decoder,
        ids: &[u32],
        keys: &mut [Keys],
        shared: Option<&Keys>,
    ) -> Vec<u32> {
        let lengths: Vec<usize> = keys.iter().map(crate::backend::Keys::len).collect();
        let before = shared.map_or(0, crate::backend::Keys::len);
        let sequences = Sequences::new(&vec![1; ids.len()], |text| before + lengths[text]);
        let next = self.next(ids, &sequences, keys, shared);
        let layers =
            |x, tokens: &Tokens, caches: &mut Caches<'_>| self.scores(x, tokens, caches, shared);
        self.a.decode(decoder, next, layers).unwrap()
    }

    fn decoder(&self, texts: usize) -> Decoder {
        self.a.decoder(texts).unwrap().unwrap()
    }
}

/// Bits of the keys and values that a cache has.
fn bits(keys: &Keys) -> Vec<u32> {
    let rows = keys.rows().unwrap().narrow(1, 0, crate::backend::Keys::len(keys)).unwrap();
    values(&rows).into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_repeated_step_has_the_bits_of_direct_launches() {
    for (precision, shuffled, cases) in [
        (Precision::Bf16, false, vec![(vec![3], 0), (vec![9, 0, 29], 40)]),
        (Precision::F16, true, vec![(vec![31, 5], 0)]),
        (Precision::F32, false, vec![(vec![31], 0)]),
    ] {
        let (counting, a) = Counting::device(precision);
        let graphs = Model::new(&a, shuffled);
        let direct = Model::new(&Cuda::emulated(precision).graphs(false), shuffled);
        // The keys of a text move to other memory at 32.
        for (lengths, shared) in cases {
            let [first, first_direct] =
                [&graphs, &direct].map(|model| model.texts(&[shared], 0).remove(0));
            let (first, first_direct) = match shared {
                0 => (None, None),
                _ => (Some(&first), Some(&first_direct)),
            };
            let mut keys = graphs.texts(&lengths, shared);
            let mut keys_direct = direct.texts(&lengths, shared);
            let mut decoder = graphs.decoder(lengths.len());
            let mut decoder_direct = direct.decoder(lengths.len());
            let mut ids: Vec<u32> = (0..lengths.len() as u32).map(|id| id + 5).collect();
            counting.launches.lock().unwrap().clear();
            let before = counting.graphs.load(Ordering::Relaxed);
            for _ in 0..4 {
                let got = graphs.decode(&mut decoder, &ids, &mut keys, first);
                let expected =
                    direct.decode(&mut decoder_direct, &ids, &mut keys_direct, first_direct);
                assert_eq!(got, expected, "{precision:?}, {lengths:?} behind {shared}");
                for (keys, expected) in keys.iter().zip(&keys_direct) {
                    assert!(bits(keys) == bits(expected), "{precision:?}, {lengths:?}");
                }
                ids = got;
            }
            // One graph, and no launch by the host.
            assert_eq!(counting.graphs.load(Ordering::Relaxed), before + 1);
            assert_eq!(counting.launches.lock().unwrap().as_slice(), []);
            // Other texts of the same number.
            let mut keys = graphs.texts(&vec![2; lengths.len()], shared);
            let mut keys_direct = direct.texts(&vec![2; lengths.len()], shared);
            let got = graphs.decode(&mut decoder, &ids, &mut keys, first);
            let expected = direct.decode(&mut decoder_direct, &ids, &mut keys_direct, first_direct);
            assert_eq!(got, expected);
            assert!(keys.iter().zip(&keys_direct).all(|(a, b)| bits(a) == bits(b)));
            assert_eq!(counting.graphs.load(Ordering::Relaxed), before + 1);
        }
    }
}

/// Everything of a recording that a replay cannot change.
fn fixed(calls: &[Call]) -> Vec<String> {
    let call = |call: &Call| match call {
        Call::Launch { kernel, dtype, launch, args } => {
            let scalar = |arg: &super::call::Kept| match arg {
                super::call::Kept::U32(v) => v.to_string(),
                super::call::Kept::F32(v) => v.to_string(),
                _ => "-".into(),
            };
            let scalars: Vec<String> = args.iter().map(scalar).collect();
            format!("{kernel:?} {dtype:?} {launch:?} {scalars:?}")
        }
        Call::Product { x, w, y, first } => {
            format!("{:?} {:?} {:?} {first}", x.dims(), w.dims(), y)
        }
    };
    calls.iter().map(call).collect()
}

/// Records a step of decoding as the host would launch it at this position.
fn recorded(model: &Model, decoder: &mut Decoder, keys: &mut [Keys]) -> Vec<Call> {
    let len = crate::backend::Keys::len(&keys[0]);
    let sequences = Sequences::new(&[1], |_| len);
    let next = model.next(&[7], &sequences, keys, None);
    let layers =
        |x, tokens: &Tokens, caches: &mut Caches<'_>| model.scores(x, tokens, caches, None);
    let decode = || model.a.decode(decoder, next, layers);
    let (_, calls) = model.a.stream.record(decode).unwrap();
    calls
}

#[test]
fn launches_of_a_step_do_not_depend_on_the_position() {
    let model = Model::new(&Cuda::emulated(Precision::Bf16).graphs(false), false);
    let mut decoder = model.decoder(1);
    let mut keys = model.texts(&[3], 0);
    let first = recorded(&model, &mut decoder, &mut keys);
    // 5 launches a layer; embedding, norm, and choice; and the output layer.
    assert_eq!(first.len(), 5 * LAYERS + 4);
    for _ in 0..3 {
        assert_eq!(fixed(&recorded(&model, &mut decoder, &mut keys)), fixed(&first));
    }
}

/// The comparison of the tests above fails for a step that has a value of the host.
#[test]
fn a_value_of_the_host_in_a_recording_is_noticed() {
    let model = Model::new(&Cuda::emulated(Precision::F32), false);
    let a = &model.a;
    let qkv = random((1, HEADS.stride()), 3);
    // The tables of positions and lengths are uploaded for each step, not kept on the device.
    let step = |keys: &mut Keys, len: usize| {
        let sequences = Arc::new(Sequences::new(&[1], |_| len));
        let tokens = a.tokens(&sequences, &model.rotary).unwrap();
        let mut caches = a.caches(&sequences, vec![keys]).unwrap();
        let out = a.attention_cached(&qkv, HEADS, &tokens, &mut caches, 0, None).unwrap();
        (out, caches.rows)
    };
    let mut keys = model.texts(&[3], 0).remove(0);
    let recording = || Ok::<_, crate::Error>(step(&mut keys, 3));
    let ((out, rows), calls) = a.stream.record(recording).unwrap();
    let graph = a.stream.graph(calls).unwrap();
    let mut again = model.texts(&[3], 0).remove(0);
    graph.launch(&rows).unwrap();
    assert!(values(&out) == values(&step(&mut again, 3).0));
    graph.launch(&rows).unwrap();
    assert!(values(&out) != values(&step(&mut again, 4).0));
}

#[test]
fn the_most_likely_token_is_the_first_one() {
    let a = Cuda::emulated(Precision::F32);
    for width in [1, 7, 50, 4096, 5001] {
        let mut scores = values(&random((4, width), 1));
        let last = width - 1;
        // A tie, infinities, and a row without a number.
        scores[width / 2] = 2.0;
        scores[last] = 2.0;
        scores[width..2 * width].fill(f32::NEG_INFINITY);
        scores[2 * width..3 * width].fill(f32::NAN);
        scores[3 * width] = f32::NAN;
        scores[3 * width + last] = f32::INFINITY;
        let scores = Tensor::from_vec(scores, (4, width), &Device::Cpu).unwrap();
        let ids = Tensor::zeros(4, DType::U32, &Device::Cpu).unwrap();
        let positions = Tensor::new(&[3u32, 0, 9, 70], &Device::Cpu).unwrap();
        let table = Tensor::arange(0i64, 8, &Device::Cpu).unwrap();
        elementwise::next_tokens(&a.stream, &scores, &ids, &positions, &table).unwrap();
        let expected = [width / 2, 0, 0, last].map(|id| id as u32);
        assert_eq!(ids.to_vec1::<u32>().unwrap(), expected, "{width}");
        assert_eq!(positions.to_vec1::<u32>().unwrap(), [4, 1, 10, 71]);
        assert_eq!(table.to_vec1::<i64>().unwrap(), [0, 2, 2, 4, 4, 6, 6, 8]);
    }
}

#[test]
fn decoders_check_their_arguments() {
    let model = Model::new(&Cuda::emulated(Precision::F32), false);
    assert!(model.a.decoder(0).unwrap().is_none());
    assert!(model.a.decoder(16).unwrap().is_some());
    assert!(model.a.decoder(17).unwrap().is_none());
    let mut decoder = model.decoder(2);
    let mut keys = model.texts(&[3, 1], 0);
    let layers =
        |x, tokens: &Tokens, caches: &mut Caches<'_>| model.scores(x, tokens, caches, None);
    let mut decode = |ids: &[u32], context| {
        let sequences = Sequences::new(&vec![1; ids.len()], |_| 3);
        let next = Next { context, ..model.next(ids, &sequences, &mut keys[..ids.len()], None) };
        model.a.decode(&mut decoder, next, layers)
    };
    assert!(decode(&[1], 512).is_err());
    assert!(decode(&[1, VOCAB as u32], 512).is_err());
    assert!(decode(&[1, 2], 513).is_err());
    assert!(decode(&[1, 2], 3).is_err());
    assert!(decode(&[1, 2], 512).is_ok());
}
