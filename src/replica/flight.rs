//! Work that many want and one does: who comes while it is under way waits for the same outcome.

use std::sync::Mutex;

use futures::{FutureExt, future::Shared};

use crate::env::{BoxFuture, Env};

/// A piece of work that is done at most once at a time.
pub struct Flight<T: Clone>(Mutex<Option<Shared<BoxFuture<'static, T>>>>);

impl<T: Clone> Default for Flight<T> {
    fn default() -> Flight<T> {
        Flight(Mutex::new(None))
    }
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Joins the work under way, or begins it. It goes on when nobody waits for it.
    pub fn join(
        &self,
        env: &dyn Env,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Shared<BoxFuture<'static, T>> {
        let mut current = super::server::locked(&self.0);
        if let Some(under_way) = current.as_ref().filter(|shared| shared.peek().is_none()) {
            return under_way.clone();
        }
        let work: BoxFuture<'static, T> = Box::pin(work);
        let shared = work.shared();
        *current = Some(shared.clone());
        env.spawn(Box::pin(shared.clone().map(|_| ())));
        shared
    }
}
