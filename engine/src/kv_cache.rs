//! The keys and values of a whole model.

use kernels::cpu::{KvLayer, KvType};

use crate::model::Config;

/// Keys and values of every layer, for a fixed number of positions. Memory is taken as positions are written.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<KvLayer>,
    context: usize,
}

impl KvCache {
    /// Room for `context` positions.
    pub fn new(config: &Config, kind: KvType, context: usize) -> KvCache {
        let layer = || KvLayer::new(kind, config.n_kv_heads, config.head_dim, context);
        KvCache { layers: (0..config.layers).map(|_| layer()).collect(), context }
    }

    /// Positions there is room for.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The keys and values of one layer.
    pub fn layer_mut(&mut self, layer: usize) -> &mut KvLayer {
        &mut self.layers[layer]
    }
}
