//! Facts from the last write of each user. Never the truth: every use is verified by the condition of the next write,
//! and nothing is refused on their word.

use crate::store::Loaded;
use domain::UserId;
use lru::LruCache;
use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

/// The most users whose facts one function instance remembers; a meter with all its holds is some 10 KB.
const USERS_MAX: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();

#[derive(Clone)]
pub(crate) struct Cache(Arc<Mutex<LruCache<UserId, Loaded>>>);

impl Cache {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(USERS_MAX))))
    }

    pub(crate) fn get(&self, user: &UserId) -> Option<Loaded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(user).cloned()
    }

    pub(crate) fn put(&self, loaded: Loaded) {
        let user = loaded.account.user.clone();
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).put(user, loaded));
    }
}
