//! The normalised interaction graph, which multiplies node embeddings.

use glta_data::Interactions;
use ndarray::ArrayView2;

use crate::kernel::Isa;
use crate::lines::{Nodes, Panels};
use crate::tiles::{Limits, Product, Tiles, run};
use crate::{Error, NodeEmbeddings, Result};

/// The symmetrically normalised bipartite graph `Â = D^-½ A D^-½` of users and items, as a sparse
/// matrix that multiplies node embeddings.
///
/// Edges store no values: embeddings are divided by the square root of the degree, so every edge
/// has weight one. Column ids take 16 bits. Nodes are renumbered by descending degree; public
/// methods use the caller's ids. The row of a node without edges is zero in the product.
///
/// ```
/// use glta_data::Interactions;
/// use glta_graph::Adjacency;
/// use ndarray::array;
///
/// // User 0 has items 0 and 1, user 1 has item 1.
/// let train = Interactions::from_pairs(2, 2, [(0, 0), (0, 1), (1, 1)])?;
/// let graph = Adjacency::new(&train)?;
/// let (users, items) = (array![[1.0], [2.0]], array![[4.0], [8.0]]);
/// let next = graph.multiply(users.view(), items.view())?;
/// // 4 / √(2·1) + 8 / √(2·2)
/// assert!((next.users[(0, 0)] - (4.0 / 2f32.sqrt() + 4.0)).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adjacency {
    pub(crate) users: Side,
    pub(crate) items: Side,
    pub(crate) isa: Isa,
}

/// The users or the items of the graph, in internal order.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// Original id of each internal row.
    pub(crate) order: Vec<u32>,
    /// Internal row of each original id.
    pub(crate) rank: Vec<u32>,
    /// Square root of each node's degree; 1 for a node without edges, so that scaling does not
    /// change its embedding.
    pub(crate) sqrt_degree: Vec<f32>,
    /// Reciprocal square root of each node's degree; 1 for a node without edges.
    pub(crate) inv_sqrt_degree: Vec<f32>,
    /// Reciprocal of each node's degree; 0 for a node without edges.
    pub(crate) inv_degree: Vec<f32>,
    pub(crate) tiles: Tiles,
}

impl Adjacency {
    /// Builds the graph from the interactions.
    ///
    /// # Errors
    /// Returns [`Error::TooLarge`] for more than 2³¹ users or items.
    pub fn new(train: &Interactions) -> Result<Self> {
        Self::with_limits(train, Limits::default())
    }

    pub(crate) fn with_limits(train: &Interactions, limits: Limits) -> Result<Self> {
        for (kind, len) in [("users", train.n_users()), ("items", train.n_items())] {
            if len > i32::MAX as usize {
                return Err(Error::TooLarge { kind, len, limit: i32::MAX as usize });
            }
        }
        let transposed = train.transpose();
        let (users, items) = (Ordering::new(train), Ordering::new(&transposed));
        let tiles = |rows: &Ordering, columns: &Ordering, matrix: &Interactions| {
            Tiles::new(&rows.degrees, &columns.degrees, limits, |row, out| {
                let neighbours = matrix.items(rows.order[row]);
                out.extend(neighbours.iter().map(|&c| columns.rank[c as usize]));
            })
        };
        let user_tiles = tiles(&users, &items, train);
        let item_tiles = tiles(&items, &users, &transposed);
        Ok(Self {
            users: users.into_side(user_tiles),
            items: items.into_side(item_tiles),
            isa: Isa::detect(),
        })
    }

    /// Returns the number of users.
    pub fn n_users(&self) -> usize {
        self.users.order.len()
    }

    /// Returns the number of items.
    pub fn n_items(&self) -> usize {
        self.items.order.len()
    }

    /// Returns the number of interactions.
    pub fn edges(&self) -> usize {
        self.users.tiles.edges()
    }

    /// Returns the memory of the edges in bytes, for both directions.
    pub fn bytes(&self) -> usize {
        self.users.tiles.bytes() + self.items.tiles.bytes()
    }

    /// Computes `Â · [users; items]` for `users: (users, dim)` and `items: (items, dim)`. `Â` is
    /// symmetric, so the method also maps the gradient with respect to the product to the gradient
    /// with respect to the embeddings.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] if the shapes do not match the graph or each other.
    pub fn multiply(
        &self,
        users: ArrayView2<'_, f32>,
        items: ArrayView2<'_, f32>,
    ) -> Result<NodeEmbeddings> {
        let mut nodes = self.load(users, items)?;
        let mut out = Nodes::zeros(self.n_users(), self.n_items(), users.ncols());
        self.scale_by(&mut nodes, |side| &side.inv_sqrt_degree);
        // Scale this side by 1/√deg instead of 1/deg, because the result must not be divided by
        // √deg.
        let factors = |side: &Side| -> Vec<f32> {
            let pairs = side.inv_degree.iter().zip(&side.sqrt_degree);
            pairs.map(|(inverse, root)| inverse * root).collect()
        };
        let (user_factors, item_factors) = (factors(&self.users), factors(&self.items));
        let mut tasks = Vec::new();
        let product = |src, scale| Product { src, scale, add: None, selection: None };
        let to_users = product(&nodes.items, &user_factors[..]);
        let to_items = product(&nodes.users, &item_factors[..]);
        let (u, i) = (&self.users.tiles, &self.items.tiles);
        u.gather(self.isa, to_users, &mut out.users, &mut tasks);
        i.gather(self.isa, to_items, &mut out.items, &mut tasks);
        run(tasks);
        Ok(self.unload(&out))
    }

    /// Converts embeddings to the internal layout and order.
    pub(crate) fn load(
        &self,
        users: ArrayView2<'_, f32>,
        items: ArrayView2<'_, f32>,
    ) -> Result<Nodes> {
        let shapes = [
            ("user embeddings", users.nrows(), self.n_users()),
            ("item embeddings", items.nrows(), self.n_items()),
            ("item embedding columns", items.ncols(), users.ncols()),
        ];
        for (what, got, expected) in shapes {
            if got != expected {
                return Err(Error::Shape { what, expected, got });
            }
        }
        Ok(Nodes {
            users: Panels::from_rows(users, &self.users.order),
            items: Panels::from_rows(items, &self.items.order),
        })
    }

    /// Converts embeddings back to the caller's order.
    pub(crate) fn unload(&self, nodes: &Nodes) -> NodeEmbeddings {
        NodeEmbeddings {
            users: nodes.users.to_rows(&self.users.order),
            items: nodes.items.to_rows(&self.items.order),
        }
    }

    /// Multiplies every row of `nodes` by the factor of the node.
    pub(crate) fn scale_by(&self, nodes: &mut Nodes, factors: impl Fn(&Side) -> &[f32]) {
        for panel in nodes.users.panels_mut() {
            self.isa.scale(panel, factors(&self.users), None);
        }
        for panel in nodes.items.panels_mut() {
            self.isa.scale(panel, factors(&self.items), None);
        }
    }
}

/// The nodes in order of descending degree, ties by id.
struct Ordering {
    order: Vec<u32>,
    rank: Vec<u32>,
    degrees: Vec<u32>,
}

impl Ordering {
    fn new(matrix: &Interactions) -> Self {
        let n = matrix.n_users();
        let degree = |id: u32| matrix.items(id).len() as u32;
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_by_key(|&id| (std::cmp::Reverse(degree(id)), id));
        let mut rank = vec![0; n];
        for (row, &id) in order.iter().enumerate() {
            rank[id as usize] = row as u32;
        }
        let degrees = order.iter().map(|&id| degree(id)).collect();
        Self { order, rank, degrees }
    }

    fn into_side(self, tiles: Tiles) -> Side {
        let roots = self.degrees.iter().map(|&d| f64::from(d.max(1)).sqrt());
        Side {
            sqrt_degree: roots.clone().map(|r| r as f32).collect(),
            inv_sqrt_degree: roots.map(|r| (1.0 / r) as f32).collect(),
            inv_degree: self
                .degrees
                .iter()
                .map(|&d| if d == 0 { 0.0 } else { 1.0 / d as f32 })
                .collect(),
            order: self.order,
            rank: self.rank,
            tiles,
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let train = Interactions::from_pairs(2, 3, [(0, 0), (1, 2)]).unwrap();
        let graph = Adjacency::new(&train).unwrap();
        let zeros = |n, d| Array2::<f32>::zeros((n, d));
        for (users, items) in
            [(zeros(3, 4), zeros(3, 4)), (zeros(2, 4), zeros(2, 4)), (zeros(2, 4), zeros(3, 5))]
        {
            assert!(matches!(graph.multiply(users.view(), items.view()), Err(Error::Shape { .. })));
        }
    }

    #[test]
    fn an_empty_graph_propagates_to_a_share_of_itself() {
        let train = Interactions::empty(2, 2).unwrap();
        let graph = Adjacency::new(&train).unwrap();
        let ones = Array2::<f32>::ones((2, 5));
        let out = graph.propagate(ones.view(), ones.view(), 3).unwrap();
        assert_eq!(out.users, &ones * 0.25);
    }
}
