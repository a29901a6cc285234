use candle_core::Tensor;

/// Cosines and sines of the rotary embedding on the device, both `(positions, dim / 2)`.
#[derive(Debug)]
pub struct Rotary {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
    pub(super) positions: usize,
}
