//! A lock that one of all replicas holds: a key of Redis with its holder's token, which runs out unless it is renewed.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::{Script, ScriptInvocation};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::{NoAnswer, Shared, milliseconds};

/// For how long a lock stays whose holder died.
const LEASE: Duration = Duration::from_secs(30);

/// How often it is tried to get one that somebody else holds, in milliseconds: now and then, so that nobody is always late.
const AGAIN: std::ops::Range<u64> = 10..40;

/// How long to wait before it is given back once more, when nobody said that it was.
const GIVE_AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// Whoever asks twice, because an answer was lost, has it once.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
return 0
",
    )
});

static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
",
    )
});

static GIVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
",
    )
});

/// A lock that no other replica has as long as this exists, and this gateway reaches Redis.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    key: String,
    token: String,
    renewal: Option<AbortHandle>,
}

impl Lease {
    /// Waits until nobody else holds it.
    ///
    /// # Errors
    ///
    /// Nobody can say who holds it. What may have been taken is given back.
    pub(crate) async fn wait(shared: &Arc<Shared>, key: String) -> Result<Self, NoAnswer> {
        let token = format!("{:032x}", fastrand::u128(..));
        // Made before asking, so that who gives up waiting leaves nothing behind.
        let mut lease = Self { shared: shared.clone(), key, token, renewal: None };
        while shared.run::<u64>(&lease.call(&TAKE)).await? == 0 {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(AGAIN))).await;
        }
        let runtime = Handle::try_current().map_err(|_| NoAnswer)?;
        let (shared, key, token) = (shared.clone(), lease.key.clone(), lease.token.clone());
        lease.renewal = Some(runtime.spawn(renew(shared, key, token)).abort_handle());
        Ok(lease)
    }

    fn call<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        call(script, &self.key, &self.token)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let certain = self.renewal.take().map(|renewal| renewal.abort()).is_some();
        // Without a runtime, or with too much under way, it runs out by itself.
        let (Ok(runtime), Some(errand)) = (Handle::try_current(), self.shared.errand()) else { return };
        let (shared, key, token) = (self.shared.clone(), self.key.clone(), self.token.clone());
        runtime.spawn(async move {
            give(&shared, &key, &token, certain).await;
            drop(errand);
        });
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("key", &self.key).finish_non_exhaustive()
    }
}

fn call<'s>(script: &'s Script, key: &str, token: &str) -> ScriptInvocation<'s> {
    let mut call = script.prepare_invoke();
    call.key(key).arg(token).arg(milliseconds(LEASE));
    call
}

/// Keeps a lock for as long as it runs.
async fn renew(shared: Arc<Shared>, key: String, token: String) {
    loop {
        tokio::time::sleep(LEASE / 6).await;
        if let Ok(0) = shared.run::<u64>(&call(&RENEW, &key, &token)).await {
            log::warn!("the lock {key} was lost while it was held: Redis forgot it, or was away for too long");
            return;
        }
    }
}

/// Gives a lock back, again if nobody says that it was done. A question that got no answer may still be on its way, and may
/// come in behind: what it may get is given back twice.
async fn give(shared: &Shared, key: &str, token: &str, certain: bool) {
    let mut times = if certain { 1 } else { 2 };
    for pause in std::iter::once(Duration::ZERO).chain(GIVE_AGAIN) {
        tokio::time::sleep(pause).await;
        if shared.run::<u64>(&call(&GIVE, key, token)).await.is_ok() {
            times -= 1;
        }
        if times == 0 {
            return;
        }
    }
}
