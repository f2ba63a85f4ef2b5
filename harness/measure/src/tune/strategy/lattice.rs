//! Neighbourhood on the lattice of a space.

use std::collections::HashMap;

use crate::tune::plan::Candidate;

/// Finds candidates by their coordinates.
pub struct Lattice {
    at: HashMap<(usize, Vec<usize>), usize>,
}

impl Lattice {
    /// Of a space.
    pub fn of(candidates: &[Candidate]) -> Lattice {
        Lattice { at: candidates.iter().enumerate().map(|(i, c)| ((c.group, c.coordinates.clone()), i)).collect() }
    }

    /// Candidates of the same kernel that lie one step along one axis away, in a fixed order.
    ///
    /// A constraint may have taken the next point out of the space; then the one after it is the neighbour.
    pub fn neighbours(&self, candidates: &[Candidate], of: usize) -> Vec<usize> {
        const REACH: usize = 3;
        let centre = &candidates[of];
        let mut out = Vec::new();
        for axis in 0..centre.coordinates.len() {
            for up in [false, true] {
                let found = (1..=REACH).find_map(|step| {
                    let mut moved = centre.coordinates.clone();
                    moved[axis] = if up { moved[axis] + step } else { moved[axis].checked_sub(step)? };
                    self.at.get(&(centre.group, moved)).copied()
                });
                out.extend(found);
            }
        }
        out
    }
}
