//! Results as printed in the paper. The splits and filters of the paper are unknown, so these
//! results are only a reference and cannot be compared with measured results.

/// The printed results of one data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Printed {
    /// Name of the data set.
    pub name: &'static str,
    /// Table 2: name, P@5, P@10, N@5 and N@10 of each system.
    pub systems: &'static [(&'static str, [f64; 4])],
    /// Figure 3, P@10: without item-text alignment, without user-item alignment, and the complete
    /// method.
    pub alignment: [f64; 3],
    /// Table 3, P@5 and N@5: without profile and prediction, without the profile, without the
    /// prediction, and the complete method.
    pub texts: [[f64; 2]; 4],
    /// Figure 4, N@10: the decoders AR and FL, and GLTA.
    pub decoders: [f64; 3],
}

/// Printed results of MovieLens-1M.
pub const MOVIELENS: Printed = Printed {
    name: "MovieLens-1M",
    systems: &[
        ("LightGCN", [0.0470, 0.0426, 0.0463, 0.0466]),
        ("HCCF", [0.0467, 0.0419, 0.0482, 0.0486]),
        ("LightGCN+", [0.0527, 0.0451, 0.0467, 0.0469]),
        ("HCCF+", [0.0516, 0.0436, 0.0486, 0.0488]),
        ("RLMRec-Con", [0.0499, 0.0460, 0.0488, 0.0492]),
        ("RLMRec-Gen", [0.0517, 0.0451, 0.0475, 0.0477]),
        ("GLTA", [0.0968, 0.0821, 0.1162, 0.1403]),
    ],
    alignment: [0.0550, 0.0647, 0.0821],
    texts: [[0.0736, 0.0658], [0.0763, 0.0713], [0.0860, 0.0761], [0.0968, 0.1162]],
    decoders: [0.0328, 0.1417, 0.1403],
};

/// Printed results of Goodreads.
pub const GOODREADS: Printed = Printed {
    name: "Goodreads, history books",
    systems: &[
        ("LightGCN", [0.1999, 0.1618, 0.2346, 0.2352]),
        ("HCCF", [0.1998, 0.1632, 0.2371, 0.2439]),
        ("LightGCN+", [0.2004, 0.1616, 0.2347, 0.2358]),
        ("HCCF+", [0.2034, 0.1641, 0.2379, 0.2483]),
        ("RLMRec-Con", [0.2062, 0.1676, 0.2441, 0.2542]),
        ("RLMRec-Gen", [0.2062, 0.1653, 0.2407, 0.2424]),
        ("GLTA", [0.2465, 0.1882, 0.2722, 0.2905]),
    ],
    alignment: [0.1839, 0.1860, 0.1882],
    texts: [[0.2462, 0.2705], [0.2466, 0.2668], [0.2467, 0.2688], [0.2465, 0.2722]],
    decoders: [0.1513, 0.2865, 0.2905],
};

/// Printed results of Amazon.
pub const AMAZON: Printed = Printed {
    name: "Amazon, grocery",
    systems: &[
        ("LightGCN", [0.0204, 0.0139, 0.0301, 0.0305]),
        ("HCCF", [0.0209, 0.0143, 0.0275, 0.0304]),
        ("LightGCN+", [0.0211, 0.0150, 0.0268, 0.0290]),
        ("HCCF+", [0.0217, 0.0156, 0.0310, 0.0315]),
        ("RLMRec-Con", [0.0227, 0.0142, 0.0348, 0.0358]),
        ("RLMRec-Gen", [0.0223, 0.0145, 0.0336, 0.0339]),
        ("GLTA", [0.0359, 0.0236, 0.0499, 0.0500]),
    ],
    alignment: [0.0173, 0.0170, 0.0236],
    texts: [[0.0316, 0.0408], [0.0318, 0.0414], [0.0341, 0.0449], [0.0359, 0.0499]],
    decoders: [0.0208, 0.0443, 0.0500],
};
