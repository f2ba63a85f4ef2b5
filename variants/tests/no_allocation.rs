//! A look-up in a table allocates nothing (R23).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use harness_spec::Shape;
use variants::{ChosenBy, Isa, Table};

struct Counting;

thread_local! {
    static MADE: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MADE.with(|made| made.set(made.get() + 1));
        // SAFETY: the contract is the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the contract is the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_second_look_up_of_a_shape_allocates_nothing() {
    let table = Table::default_for(Isa::Scalar);
    let shapes: Vec<Shape> = (1..200).map(|n| Shape::of([("N", n), ("K", 64), ("M", n % 3 + 1)])).collect();
    for shape in &shapes {
        assert!(table.choose("gemv_q4_0", shape).is_some());
    }
    let before = MADE.with(Cell::get);
    for shape in &shapes {
        let choice = table.choose(black_box("gemv_q4_0"), black_box(shape)).unwrap();
        assert_ne!(black_box(choice).from, ChosenBy::Row);
    }
    assert_eq!(MADE.with(Cell::get) - before, 0);
    drop(black_box(vec![1u8; 100]));
    assert_eq!(MADE.with(Cell::get) - before, 1, "the counter counts");
}
