use std::error::Error;

use ndarray::Array2;

use crate::Progress;

/// A model that turns texts into vectors. Texts about the same subject get similar vectors.
///
/// ```
/// use std::error::Error;
///
/// use glta_core::{Progress, Silent, TextEncoder, report};
/// use ndarray::Array2;
///
/// /// Counts the letters a to z.
/// struct Letters;
///
/// impl TextEncoder for Letters {
///     fn name(&self) -> &str {
///         "letters"
///     }
///
///     fn dim(&self) -> usize {
///         26
///     }
///
///     fn encode(
///         &self,
///         texts: &[String],
///         progress: &mut dyn Progress<(usize, usize)>,
///     ) -> Result<Array2<f32>, Box<dyn Error + Send + Sync>> {
///         let mut counts = Array2::zeros((texts.len(), self.dim()));
///         for (n, text) in texts.iter().enumerate() {
///             for letter in text.bytes().filter(u8::is_ascii_lowercase) {
///                 counts[[n, usize::from(letter - b'a')]] += 1.0;
///             }
///             report(progress, &(n + 1, texts.len()))?;
///         }
///         Ok(counts)
///     }
/// }
///
/// let encoder: &dyn TextEncoder = &Letters;
/// let vectors = encoder.encode(&["tea".into(), "".into()], &mut Silent)?;
/// assert_eq!(vectors.dim(), (2, 26));
/// # Ok::<(), Box<dyn Error + Send + Sync>>(())
/// ```
pub trait TextEncoder: Send + Sync {
    /// Returns the name of the encoder in reports and files.
    fn name(&self) -> &str;

    /// Returns the length of the vectors.
    fn dim(&self) -> usize;

    /// Returns one vector per text, `(texts, dim)`. A text without content, such as an empty text,
    /// gets a vector of zeros. The vector of a text does not depend on the other texts. `progress`
    /// receives the number of encoded texts and their total.
    ///
    /// # Errors
    /// Returns any error of the encoder, and [`Cancelled`](crate::Cancelled) if `progress` cancels
    /// the work.
    fn encode(
        &self,
        texts: &[String],
        progress: &mut dyn Progress<(usize, usize)>,
    ) -> Result<Array2<f32>, Box<dyn Error + Send + Sync>>;
}
