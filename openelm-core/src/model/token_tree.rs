//! Token sequences with common prefixes as a tree, which one pass of the network reads (tree
//! attention).

use std::collections::HashMap;

use mlx_rs::Array;

use super::{
    forward_context::{ForwardContext, Segment},
    kv_cache::KvCache,
    model::Model,
};
use crate::{error::Result, mlx::Dtype};

/// A tree of tokens. Each path from its beginning is a sequence; sequences share the nodes of a
/// common prefix. A parent has a lower index than its children.
#[derive(Debug, Default)]
pub(crate) struct TokenTree {
    nodes: Vec<Node>,
    /// The child of a node, `None` for the beginning, with a token.
    children: HashMap<(Option<usize>, u32), usize>,
}

#[derive(Debug)]
struct Node {
    token: u32,
    parent: Option<usize>,
    /// Number of nodes before it on its path.
    depth: usize,
}

impl TokenTree {
    /// Number of nodes.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a sequence, and returns the node of each of its tokens.
    pub(crate) fn insert(&mut self, sequence: &[u32]) -> Vec<usize> {
        let mut parent = None;
        let mut path = Vec::with_capacity(sequence.len());
        for (depth, &token) in sequence.iter().enumerate() {
            let new = self.nodes.len();
            let node = *self.children.entry((parent, token)).or_insert(new);
            if node == new {
                self.nodes.push(Node {
                    token,
                    parent,
                    depth,
                });
            }
            path.push(node);
            parent = Some(node);
        }
        path
    }

    /// Removes all nodes from the index `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.nodes.truncate(len);
        self.children.retain(|_, node| *node < len);
    }

    /// True if it is one sequence.
    fn is_chain(&self) -> bool {
        let mut nodes = self.nodes.iter().enumerate();
        nodes.all(|(index, node)| node.depth == index)
    }

    /// Tokens `[1, L]`.
    fn tokens(&self) -> Array {
        let tokens: Vec<u32> = self.nodes.iter().map(|node| node.token).collect();
        Array::from_slice(&tokens, &[1, tokens.len() as i32])
    }

    /// The runs of consecutive positions, after `offset` positions.
    fn segments(&self, offset: usize) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        for node in &self.nodes {
            let position = offset + node.depth;
            match segments.last_mut() {
                Some(last) if last.offset + last.length == position => last.length += 1,
                _ => segments.push(Segment {
                    offset: position,
                    length: 1,
                }),
            }
        }
        segments
    }

    /// The mask `[1, 1, L, offset + L]`, added to scores of type `dtype`: a node sees the `offset`
    /// positions before the tree, the nodes before it on its path, and itself.
    fn mask(&self, offset: usize, dtype: Dtype) -> Result<Array> {
        let (length, width) = (self.nodes.len(), offset + self.nodes.len());
        let mut rows = vec![f32::NEG_INFINITY; length * width];
        for (index, node) in self.nodes.iter().enumerate() {
            let (before, from) = rows.split_at_mut(index * width);
            let row = &mut from[..width];
            match node.parent {
                Some(parent) => row.copy_from_slice(&before[parent * width..(parent + 1) * width]),
                None => row[..offset].fill(0.0),
            }
            row[offset + index] = 0.0;
        }
        let shape = [1, 1, length as i32, width as i32];
        Ok(Array::from_slice(&rows, &shape).as_dtype(dtype.mlx())?)
    }
}

impl Model {
    /// Final hidden states `[1, L, D]` of the `L` nodes of `tree`, whose sequences continue the one
    /// in `cache`. The keys and values of all nodes are added to it: it must be cut before its next
    /// use, unless the tree is one sequence. The cache is a plain one.
    ///
    /// # Errors
    /// As [`hidden`](Self::hidden).
    pub(crate) fn hidden_of_tree(&self, tree: &TokenTree, cache: &mut KvCache) -> Result<Array> {
        let tokens = tree.tokens();
        if tree.is_chain() {
            return self.hidden(&tokens, cache);
        }
        let (offset, length) = (cache.offset(), tree.len());
        let context = ForwardContext::tree(
            self.rope(),
            &tree.segments(offset),
            Segment { offset, length },
            tree.mask(offset, self.dtype())?,
        );
        self.hidden_in(&tokens, &context, &mut [cache])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (TokenTree, [Vec<usize>; 3]) {
        let mut tree = TokenTree::default();
        let paths = [&[7, 8, 9][..], &[7, 8, 5, 6], &[4]].map(|sequence| tree.insert(sequence));
        (tree, paths)
    }

    #[test]
    fn sequences_share_a_common_prefix() {
        let (mut tree, paths) = tree();
        assert_eq!(paths, [vec![0, 1, 2], vec![0, 1, 3, 4], vec![5]]);
        let segments = tree.segments(10);
        let segments: Vec<_> = segments.iter().map(|s| (s.offset, s.length)).collect();
        assert_eq!(segments, [(10, 3), (12, 2), (10, 1)]);
        assert!(!tree.is_chain());
        tree.truncate(3);
        assert!(tree.is_chain());
        assert_eq!(tree.insert(&[7, 5]), [0, 3]);
    }

    #[test]
    fn a_node_sees_its_path_and_the_positions_before_the_tree() {
        let (tree, _) = tree();
        let mask = tree.mask(2, Dtype::Float32).unwrap();
        assert_eq!(mask.shape(), [1, 1, 6, 8]);
        let mask = mask.to_vec_exact::<f32>().unwrap();
        let seen = |row: &[f32]| {
            row.iter()
                .map(|&x| if x == 0.0 { 'x' } else { '.' })
                .collect()
        };
        let rows: Vec<String> = mask.chunks(8).map(seen).collect();
        assert_eq!(
            rows,
            [
                "xxx.....", "xxxx....", "xxxxx...", "xxxx.x..", "xxxx.xx.", "xx.....x"
            ]
        );
    }
}
