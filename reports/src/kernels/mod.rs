//! Reports of `verify`, `sweep` and `tune`: the folder of a run of kernels, its tables, charts and page.

mod charts;
mod folder;
mod fusion;
mod html;
mod markdown;
mod names;
mod terminal;
mod view;

pub use charts::draw_kernels;
pub use folder::{
    LoadedKernelRun, is_kernel_run, load_kernel_run, rebuild_kernel_run, rebuild_kernel_run_with, write_kernel_run,
    write_kernel_run_with,
};
pub use html::kernel_html;
pub use markdown::kernel_markdown;
pub use terminal::kernel_terminal;
pub use view::repeated;
pub(crate) use view::{command_name as kernel_command, headline as kernel_headline};
