//! A cache in pages (V81): keys and values lie by the PAGE positions, anywhere in a pool, and a block table finds them.
//!
//! The pool is `[pages, KV_HEADS, PAGE, DIM]`. The table is i32 `[MAX_LEN / PAGE]`, rounded up: entry i is the page of positions
//! i PAGE and on, or [`NO_PAGE`]. What the pool has of no position is NaN.

use half::f16;
use variants::Layout;

use super::attention::Sizes;
use super::random::Rng;

/// The entry of positions none of which exists.
pub(super) const NO_PAGE: i32 = -1;

/// Pages of a pool that no sequence of the greatest length takes.
const SPARE: usize = 2;

/// Which page holds what.
#[derive(Debug)]
pub(super) struct Pages {
    sizes: Sizes,
    /// Positions of a page.
    page: usize,
    /// Pages of the pool.
    count: usize,
    /// The block table.
    pub table: Vec<i32>,
}

/// Positions of a page in a layout; `None` where positions lie in order.
pub(super) fn page_of(layout: Option<Layout>) -> Option<usize> {
    match layout? {
        Layout::Paged16 => Some(16),
        Layout::Paged32 => Some(32),
        Layout::Paged64 => Some(64),
        _ => None,
    }
}

impl Pages {
    /// A table of pages in no order, the same for the same sizes. No page has the number of its entry, so that a kernel that
    /// leaves out the table reads wrong rows at any length.
    pub(super) fn new(page: usize, sizes: Sizes) -> Pages {
        let entries = sizes.max_len.div_ceil(page);
        let count = entries + SPARE;
        let mut table: Vec<i32> = (0..count as i32).collect();
        let mut rng = Rng::new(count as u64, 12);
        // Sattolo's shuffle: a permutation of one cycle, which nothing stays in its place in.
        for i in (1..count).rev() {
            table.swap(i, rng.below(i));
        }
        table.truncate(entries);
        table[sizes.len.div_ceil(page)..].fill(NO_PAGE);
        Pages { sizes, page, count, table }
    }

    /// Bytes of the entries that the positions which exist are found by.
    pub(super) const fn table_bytes(page: usize, len: usize) -> usize {
        4 * len.div_ceil(page)
    }

    /// Where a position of a head lies, in rows of DIM elements.
    fn row(&self, head: usize, pos: usize) -> usize {
        let page = usize::try_from(self.table[pos / self.page]).expect("the position exists, so its page does");
        (page * self.sizes.kv_heads + head) * self.page + pos % self.page
    }

    /// The rows of a position, a head each, as ranges of bytes of a pool of f16.
    pub(super) fn bytes_at(&self, pos: usize) -> Vec<std::ops::Range<usize>> {
        let row = 2 * self.sizes.dim;
        (0..self.sizes.kv_heads).map(|head| self.row(head, pos) * row..(self.row(head, pos) + 1) * row).collect()
    }

    /// The pool of keys or values that are `[KV_HEADS, MAX_LEN, DIM]` in order.
    pub(super) fn pool(&self, in_order: &[u16]) -> Vec<u16> {
        let Sizes { kv_heads, dim, len, max_len, .. } = self.sizes;
        let mut pool = vec![f16::NAN.to_bits(); self.count * kv_heads * self.page * dim];
        for (head, pos) in (0..kv_heads).flat_map(|head| (0..len).step_by(self.page).map(move |pos| (head, pos))) {
            let elements = self.page.min(len - pos) * dim;
            let (from, to) = ((head * max_len + pos) * dim, self.row(head, pos) * dim);
            pool[to..to + elements].copy_from_slice(&in_order[from..from + elements]);
        }
        pool
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const DIM: usize = 2;

    /// Sizes with a page.
    fn any() -> impl Strategy<Value = (usize, Sizes)> {
        let page = prop::sample::select(vec![16usize, 32, 64]);
        (page, 1usize..300, 0usize..200, 1usize..4).prop_map(|(page, len, room, kv_heads)| {
            (page, Sizes { heads: kv_heads, kv_heads, dim: DIM, len, max_len: len + room })
        })
    }

    /// Keys that tell their head and position: 2048 whole numbers of an f16 are enough, as there are two elements.
    fn keys(s: &Sizes) -> Vec<u16> {
        let element = |i: usize| {
            let (head, pos, d) = (i / DIM / s.max_len, i / DIM % s.max_len, i % DIM);
            let told = if d == 0 { pos } else { head };
            if pos < s.len { f16::from_f32(told as f32) } else { f16::NAN }.to_bits()
        };
        (0..s.kv_heads * s.max_len * DIM).map(element).collect()
    }

    proptest! {
        #[test]
        fn every_position_of_every_head_is_where_the_table_says_and_all_else_is_nan((page, s) in any()) {
            let (pages, keys) = (Pages::new(page, s), keys(&s));
            let pool = pages.pool(&keys);
            for (head, pos) in (0..s.kv_heads).flat_map(|h| (0..s.len).map(move |p| (h, p))) {
                let (row, from) = (pages.row(head, pos), head * s.max_len + pos);
                prop_assert_eq!(&pool[row * DIM..][..DIM], &keys[from * DIM..][..DIM]);
            }
            let there = pool.iter().filter(|&&bits| !f16::from_bits(bits).is_nan()).count();
            prop_assert_eq!(there, s.kv_heads * s.len * DIM);
        }

        #[test]
        fn pages_are_no_ones_twice_none_has_its_entrys_number_and_less_than_one_is_wasted((page, s) in any()) {
            let Pages { table, count, .. } = Pages::new(page, s);
            prop_assert_eq!(table.len(), s.max_len.div_ceil(page));
            let (used, unused) = table.split_at(s.len.div_ceil(page));
            prop_assert!(unused.iter().all(|&page| page == NO_PAGE));
            prop_assert!(used.iter().enumerate().all(|(i, &page)| page != i as i32 && (0..count as i32).contains(&page)));
            prop_assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), used.len());
            prop_assert!(used.len() * page - s.len < page);
        }

        #[test]
        fn what_is_appended_at_a_position_changes_its_rows_alone((page, s) in any()) {
            let pages = Pages::new(page, s);
            let last = s.len - 1;
            let (before, mut keys) = (pages.pool(&keys(&s)), keys(&s));
            for head in 0..s.kv_heads {
                let row = (head * s.max_len + last) * DIM;
                keys[row..row + DIM].fill(f16::from_f32(-1.0).to_bits());
            }
            let after = pages.pool(&keys);
            let late: BTreeSet<usize> = pages.bytes_at(last).into_iter().flat_map(|r| r.step_by(2)).collect();
            for (i, (a, b)) in before.iter().zip(&after).enumerate() {
                prop_assert_eq!(a != b, late.contains(&(2 * i)), "element {}", i);
            }
        }
    }
}
