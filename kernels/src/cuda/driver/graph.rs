//! Captured graphs.

use std::sync::Arc;

use cudarc::driver::sys;

use super::{Device, Stream, check};
use crate::cuda::CudaError;

/// A captured sequence of launches, instantiated and on the device.
#[derive(Debug)]
pub struct Graph {
    exec: sys::CUgraphExec,
    nodes: usize,
    early: Option<usize>,
    _device: Arc<Device>,
}

// SAFETY: a graph is a handle that is used from one thread at a time, as `&mut` and ownership have it here.
unsafe impl Send for Graph {}

impl Graph {
    /// Captures what `record` puts on the stream. Nothing of it runs. Every kernel in it has run once before: the first
    /// launch of a function loads it, which a capture forbids.
    ///
    /// # Errors
    /// Those of `record`, or the driver's error.
    pub fn capture(stream: &Stream, record: impl FnOnce(&Stream) -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        stream.device.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive and not being captured: `capture` is the only place that begins one, and it ends it.
        let result = unsafe { sys::cuStreamBeginCapture_v2(stream.raw, mode) };
        check("cuStreamBeginCapture", result, || "capturing a graph".to_owned())?;
        let recorded = record(stream);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the stream is being captured; the pointer is valid for one handle.
        let ended = unsafe { sys::cuStreamEndCapture(stream.raw, &mut raw) };
        let graph = Raw(raw);
        recorded?;
        check("cuStreamEndCapture", ended, || "capturing a graph".to_owned())?;
        let mut nodes = 0;
        // SAFETY: the graph is alive; a null list asks for the number only.
        let result = unsafe { sys::cuGraphGetNodes(graph.0, std::ptr::null_mut(), &mut nodes) };
        check("cuGraphGetNodes", result, || "counting the nodes of a graph".to_owned())?;
        let early = programmatic_edges(graph.0);
        let mut exec = std::ptr::null_mut();
        // SAFETY: the graph is alive; the pointer is valid for one handle.
        let result = unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph.0, 0) };
        check("cuGraphInstantiateWithFlags", result, || format!("instantiating a graph of {nodes} nodes"))?;
        let out = Graph { exec, nodes, early, _device: stream.device.clone() };
        // SAFETY: both handles are alive.
        let result = unsafe { sys::cuGraphUpload(out.exec, stream.raw) };
        check("cuGraphUpload", result, || format!("sending a graph of {nodes} nodes to the device"))?;
        Ok(out)
    }

    /// Nodes: one a launch.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Edges by which a node may start before the one ahead of it has ended; `None` where the driver cannot be asked.
    pub fn programmatic_edges(&self) -> Option<usize> {
        self.early
    }

    /// Launches the graph on a stream.
    ///
    /// # Errors
    /// The driver's error.
    pub fn launch(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both handles are alive; the buffers that the nodes use are kept by whoever owns the graph.
        let result = unsafe { sys::cuGraphLaunch(self.exec, stream.raw) };
        check("cuGraphLaunch", result, || format!("launching a graph of {} nodes", self.nodes))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the handle was made by `capture` and is used no more; the driver waits for a launch that is running.
        unsafe {
            let _ = sys::cuGraphExecDestroy(self.exec);
        }
    }
}

type Edges = unsafe extern "C" fn(
    sys::CUgraph,
    *mut sys::CUgraphNode,
    *mut sys::CUgraphNode,
    *mut sys::CUgraphEdgeData,
    *mut usize,
) -> sys::CUresult;

/// Counts the programmatic edges of a graph. Drivers before CUDA 12.3 have none and no function to ask.
fn programmatic_edges(graph: sys::CUgraph) -> Option<usize> {
    const PROGRAMMATIC: u8 = 1;
    // SAFETY: the signature is that of cuda.h.
    let get = unsafe { crate::cuda::library::driver_symbol::<Edges>("cuGraphGetEdges_v2") }?;
    let mut count = 0;
    let none = std::ptr::null_mut::<sys::CUgraphNode>();
    // SAFETY: the graph is alive; null lists ask for the number only.
    if unsafe { get(graph, none, none, std::ptr::null_mut(), &mut count) } != sys::CUresult::CUDA_SUCCESS {
        return None;
    }
    let mut from: Vec<sys::CUgraphNode> = vec![std::ptr::null_mut(); count];
    let mut to = from.clone();
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut data: Vec<sys::CUgraphEdgeData> = vec![unsafe { std::mem::zeroed() }; count];
    // SAFETY: all three lists have room for `count` edges.
    let result = unsafe { get(graph, from.as_mut_ptr(), to.as_mut_ptr(), data.as_mut_ptr(), &mut count) };
    let known = result == sys::CUresult::CUDA_SUCCESS;
    known.then(|| data.iter().filter(|d| d.type_ == PROGRAMMATIC).count())
}

/// A graph before it is instantiated; nothing where the capture failed.
struct Raw(sys::CUgraph);

impl Drop for Raw {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the handle came from the capture and is used no more.
            unsafe {
                let _ = sys::cuGraphDestroy(self.0);
            }
        }
    }
}
