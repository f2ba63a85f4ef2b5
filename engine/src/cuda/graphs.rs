//! The graphs of a token: one for each class of lengths that the context reaches, as attention is chosen by length. Token,
//! position and length lie in device memory, so that none of them ever changes.

use std::ops::Range;

use kernels::cuda::CudaError;
use kernels::cuda::driver::Graph;
use kernels::cuda::exec::{LengthClass, Program};

/// The steps of a token at every length, and their graphs.
#[derive(Debug)]
pub struct Graphs {
    // Before the steps, which keep what it uses.
    graphs: Vec<Graph>,
    /// The steps of each class, the shortest first, and which graph they are: classes with the same launches share one.
    classes: Vec<(Program, usize)>,
}

impl Graphs {
    /// Of the steps of each class, the shortest first. `capture` makes a graph of some of them.
    ///
    /// # Errors
    /// Those of `capture`.
    pub fn new(
        programs: Vec<Program>,
        mut capture: impl FnMut(&Program) -> Result<Graph, CudaError>,
    ) -> Result<Graphs, CudaError> {
        let mut out = Graphs { graphs: Vec::new(), classes: Vec::new() };
        for program in programs {
            let same = out.classes.iter().find(|(other, _)| other.launches_as(&program)).map(|&(_, graph)| graph);
            let graph = match same {
                Some(graph) => graph,
                None => {
                    out.graphs.push(capture(&program)?);
                    out.graphs.len() - 1
                }
            };
            out.classes.push((program, graph));
        }
        Ok(out)
    }

    /// The class of a token at a position, which sees the keys up to its own.
    fn class(&self, pos: usize) -> usize {
        // Positions behind the context have no class of their own, and nothing is launched there.
        LengthClass::of(pos + 1).index().min(self.classes.len() - 1)
    }

    /// The steps of a token at a position.
    pub fn program(&self, pos: usize) -> &Program {
        &self.classes[self.class(pos)].0
    }

    /// The graph of a token at a position.
    pub fn graph(&self, pos: usize) -> &Graph {
        &self.graphs[self.classes[self.class(pos)].1]
    }

    /// The steps of every class that tokens at these positions are of.
    pub fn programs_at(&self, positions: Range<usize>) -> impl Iterator<Item = &Program> {
        let classes = match positions.is_empty() {
            true => 0..0,
            false => self.class(positions.start)..self.class(positions.end - 1) + 1,
        };
        self.classes[classes].iter().map(|(program, _)| program)
    }

    /// The steps of every class.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.classes.iter().map(|(program, _)| program)
    }
}
