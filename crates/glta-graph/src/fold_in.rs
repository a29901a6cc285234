//! Computes embeddings of nodes that are not in the training graph.

use ndarray::ArrayView2;

/// Computes the embedding of a user from the user's items, through the frozen graph: `Σ e_i /
/// √(deg_i · |context|)` over the items in `context`.
///
/// `items: (items, dim)` contains item embeddings, and `item_degrees` the numbers of training
/// interactions. For a user of the training graph with all of the user's items, the result is the
/// user's row of [`Adjacency::multiply`](crate::Adjacency::multiply).
///
/// An item without training interactions counts as an item of degree one. Ids out of range are
/// ignored. The result is zero for an empty `context`.
///
/// # Approximation
/// The result approximates the embedding that the user would get if the user were added to the
/// graph with a zero layer-0 embedding and the graph were propagated again.
///
/// Let `items` come from [`Adjacency::propagate`](crate::Adjacency::propagate) over `layers - 1`
/// layers, times `layers / (layers + 1)`. The result is then the user's row of the propagation over
/// `layers` layers, except for the effect of the new user on other nodes: the user raises degrees
/// by one and sends messages to the items. Both effects vanish as the degrees of the items grow.
///
/// GLTA passes the final embeddings of training as `items`. They also contain the last layer, which
/// changes the length of the result more than its direction.
///
/// ```
/// use glta_graph::fold_in_user;
/// use ndarray::array;
///
/// let items = array![[2.0, 0.0], [0.0, 3.0]];
/// let user = fold_in_user(items.view(), &[4, 9], &[0, 1]);
/// let root = 2f32.sqrt();
/// assert_eq!(user, [2.0 / 2.0 / root, 3.0 / 3.0 / root]);
/// ```
pub fn fold_in_user(items: ArrayView2<'_, f32>, item_degrees: &[u32], context: &[u32]) -> Vec<f32> {
    fold_in(items, item_degrees, context)
}

/// Computes the embedding of an item from its users, like [`fold_in_user`] with users and items
/// exchanged.
///
/// ```
/// use glta_graph::fold_in_item;
/// use ndarray::array;
///
/// let users = array![[1.0f32, 0.0], [0.0, 1.0]];
/// let item = fold_in_item(users.view(), &[1, 1], &[0]);
/// assert!(item[0] > item[1]);
/// ```
pub fn fold_in_item(users: ArrayView2<'_, f32>, user_degrees: &[u32], context: &[u32]) -> Vec<f32> {
    fold_in(users, user_degrees, context)
}

fn fold_in(neighbours: ArrayView2<'_, f32>, degrees: &[u32], context: &[u32]) -> Vec<f32> {
    let mut sum = vec![0.0f32; neighbours.ncols()];
    let mut used = 0usize;
    for &id in context {
        let id = id as usize;
        let (Some(&degree), true) = (degrees.get(id), id < neighbours.nrows()) else {
            continue;
        };
        used += 1;
        let weight = 1.0 / (degree.max(1) as f32).sqrt();
        for (s, x) in sum.iter_mut().zip(neighbours.row(id)) {
            *s += weight * x;
        }
    }
    if used > 0 {
        let root = (used as f32).sqrt();
        for s in &mut sum {
            *s /= root;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use glta_data::Interactions;
    use ndarray::{Array2, Axis, concatenate};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::Adjacency;

    const USERS: u32 = 300;
    const ITEMS: u32 = 60;
    const DIM: usize = 16;

    fn setup() -> (Vec<(u32, u32)>, Array2<f32>, Array2<f32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let pairs = (0..USERS)
            .flat_map(|u| (0..ITEMS).map(move |i| (u, i)))
            .filter(|&(_, i)| rng.random_range(0..60 + i) < 20)
            .collect();
        let mut matrix =
            |n: u32| Array2::from_shape_fn((n as usize, DIM), |_| rng.random_range(-1.0f32..1.0));
        let (users, items) = (matrix(USERS), matrix(ITEMS));
        (pairs, users, items)
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
        let gap: Vec<f32> = a.iter().zip(b).map(|(x, y)| x - y).collect();
        norm(&gap) / norm(b)
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    #[test]
    fn a_known_node_gets_its_row_of_the_product() {
        let (pairs, users, items) = setup();
        let train = Interactions::from_pairs(USERS as usize, ITEMS as usize, pairs).unwrap();
        let graph = Adjacency::new(&train).unwrap();
        let product = graph.multiply(users.view(), items.view()).unwrap();
        let transposed = train.transpose();
        for id in [0, 7, 59] {
            let user = fold_in_user(items.view(), &train.item_degrees(), train.items(id));
            assert!(distance(&user, product.users.row(id as usize).as_slice().unwrap()) < 1e-5);
            let degrees = transposed.item_degrees();
            let item = fold_in_item(users.view(), &degrees, transposed.items(id));
            assert!(distance(&item, product.items.row(id as usize).as_slice().unwrap()) < 1e-5);
        }
    }

    #[test]
    fn close_to_propagation_on_the_extended_graph() {
        let (mut pairs, users, items) = setup();
        let (n, layers) = (USERS as usize, 3);
        let train = Interactions::from_pairs(n, ITEMS as usize, pairs.clone()).unwrap();
        let graph = Adjacency::new(&train).unwrap();
        let context = [1, 4, 9, 16, 25, 36];

        pairs.extend(context.map(|i| (USERS, i)));
        let extended = Interactions::from_pairs(n + 1, ITEMS as usize, pairs).unwrap();
        let start = concatenate![Axis(0), users, Array2::zeros((1, DIM))];
        let whole = Adjacency::new(&extended).unwrap();
        let truth = whole.propagate(start.view(), items.view(), layers).unwrap();
        let truth = truth.users.row(n).to_vec();

        let degrees = train.item_degrees();
        let below = graph.propagate(users.view(), items.view(), layers - 1).unwrap();
        let share = layers as f32 / (layers + 1) as f32;
        let basis = &below.items * share;
        let close = fold_in_user(basis.view(), &degrees, &context);
        // The approximation is exact, except for the effect of the user on other nodes.
        assert!(distance(&close, &truth) < 0.02, "{}", distance(&close, &truth));
        let all = graph.propagate(users.view(), items.view(), layers).unwrap();
        let token = fold_in_user(all.items.view(), &degrees, &context);
        assert!(cosine(&token, &truth) > 0.97, "{}", cosine(&token, &truth));
    }

    #[test]
    fn empty_unknown_and_unseen() {
        let items = Array2::<f32>::ones((3, 4));
        assert_eq!(fold_in_user(items.view(), &[1, 1, 0], &[]), [0.0; 4]);
        assert_eq!(fold_in_user(items.view(), &[1, 1, 0], &[7]), [0.0; 4]);
        assert_eq!(fold_in_user(items.view(), &[1, 1, 0], &[2, 9]), [1.0; 4]);
    }
}
