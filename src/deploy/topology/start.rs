//! A bus that starts.

use tokio::runtime::Handle;

use crate::deploy::compile::Compile;
use crate::deploy::record::store::Store;
use crate::deploy::reloader::Reloader;
use crate::dispatch::Tree;
use crate::engine::Engine;
use crate::topology::Plan;

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Manages the versions of a tree that was started with the result of [`begin`](crate::deploy::begin), and
    /// continues an interrupted deletion; compiles versions for which the start did not wait. Tasks run on `runtime`.
    pub fn start(
        tree: Tree<E>,
        compiler: C,
        plan: &Plan,
        begun: (Store, Vec<Option<String>>),
        runtime: &Handle,
    ) -> Self {
        let reloader = Self::run_versions(tree, compiler, plan, begun, runtime);
        reloader.go_on_forgetting();
        reloader.compile_waiting();
        reloader
    }
}
