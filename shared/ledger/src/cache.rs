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

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Account, Opening, PlanId, Timestamp};

    fn loaded(n: usize) -> Loaded {
        let user = UserId::parse(&format!("user_{n}")).unwrap();
        let account = Account::first_seen(user, PlanId::parse("free").unwrap(), Timestamp::from_s(1));
        let Opening { account, meter, .. } = Opening::first(account, Timestamp::from_s(1)).unwrap();
        Loaded { account, meter }
    }

    #[test]
    fn i8_f18_the_cache_forgets_the_longest_unused_rather_than_grow() {
        let cache = Cache::new();
        for n in 0..=USERS_MAX.get() {
            cache.put(loaded(n));
        }
        assert_eq!(cache.0.lock().unwrap().len(), USERS_MAX.get());
        assert_eq!(cache.get(&loaded(0).account.user), None);
        assert_eq!(cache.get(&loaded(1).account.user), Some(loaded(1)));
    }
}
