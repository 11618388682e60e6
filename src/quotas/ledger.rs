//! Counters in a Redis that replicas share: all that a request asks of all its limits, in one round trip.
//!
//! What is kept is what is kept in memory: one moment for each counter, here in microseconds of Redis' own clock, so that
//! the clocks of replicas needn't agree; and for uploads a set of those under way. Everything runs out by itself.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::Script;
use tokio::task::AbortHandle;

use super::window::Window;
use crate::shared::{NoAnswer, Shared};

/// How long an upload keeps its place after a gateway that died.
const LEASE: Duration = Duration::from_secs(30);

/// Answers with the position of the first counter without room (0 if there is none), and with what is used of each. Takes
/// only if all have room.
static ASK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local token, lease = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {0}
for i, key in ipairs(KEYS) do
  local mode, amount, window = ARGV[3 * i], tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local used, full
  if mode == 'place' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    used = redis.call('ZCARD', key)
    full = used >= amount
  else
    used = math.max(tonumber(redis.call('GET', key) or 0) - now, 0)
    full = mode ~= 'look' and used + window / amount > window + 1
  end
  if full and answer[1] == 0 then answer[1] = i end
  answer[i + 1] = used
end
if answer[1] == 0 then
  for i, key in ipairs(KEYS) do
    local mode, amount, window = ARGV[3 * i], tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
    if mode == 'place' then
      redis.call('ZADD', key, now + lease, token)
      redis.call('PEXPIRE', key, math.ceil(lease / 1000))
    elseif mode == 'take' then
      local used = answer[i + 1] + window / amount
      redis.call('SET', key, string.format('%.3f', now + used), 'PX', math.ceil(used / 1000))
      answer[i + 1] = used
    end
  end
end
for i, used in ipairs(answer) do answer[i] = math.floor(used) end
return answer
",
    )
});

/// Adds to counters what was used, whether there was room or not.
static CHARGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for i, key in ipairs(KEYS) do
  local used = math.max(tonumber(redis.call('GET', key) or 0) - now, 0) + tonumber(ARGV[i])
  redis.call('SET', key, string.format('%.3f', now + used), 'PX', math.ceil(used / 1000) + 1)
end
return 1
",
    )
});

/// Keeps places for longer.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local token, lease = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, time[1] * 1000000 + time[2] + lease, token)
  redis.call('PEXPIRE', key, math.ceil(lease / 1000))
end
return 1
",
    )
});

/// Gives places back.
static LEAVE: LazyLock<Script> =
    LazyLock::new(|| Script::new("for _, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[1]) end return 1"));

/// What is asked of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One of it.
    Take(Window),
    /// How much there is.
    Look(Window),
    /// Whether there is any.
    Room(Window),
    /// One place of so many.
    Place(u64),
}

/// A question about one counter.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) key: String,
    pub(super) mode: Mode,
}

/// What Redis says to the questions of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The position of the first question whose counter has no room.
    pub(super) full: Option<usize>,
    /// What is used of each: nanoseconds of the window, or places.
    pub(super) used: Vec<u64>,
}

/// Asks all questions at once. Either everything is taken or nothing.
pub(super) async fn ask(shared: &Shared, questions: &[Question], token: &str) -> Result<Answer, NoAnswer> {
    let mut call = ASK.prepare_invoke();
    call.arg(token).arg(micros(LEASE));
    for Question { key, mode } in questions {
        let (word, (amount, window)) = match mode {
            Mode::Take(window) => ("take", window.in_micros()),
            Mode::Look(window) => ("look", window.in_micros()),
            Mode::Room(window) => ("room", window.in_micros()),
            Mode::Place(most) => ("place", (*most, 0)),
        };
        call.key(key).arg(word).arg(amount).arg(window);
    }
    let numbers: Vec<u64> = shared.run(&call).await?;
    // Another number of them is the answer to some other question.
    let (full, used) = numbers.split_first().filter(|(_, used)| used.len() == questions.len()).ok_or(NoAnswer)?;
    let full = usize::try_from(*full).ok().and_then(|position| position.checked_sub(1));
    let is_place = |at: usize| questions.get(at).is_some_and(|question| matches!(question.mode, Mode::Place(_)));
    let used = used.iter().enumerate();
    let used = used.map(|(at, used)| if is_place(at) { *used } else { used.saturating_mul(1000) }).collect();
    Ok(Answer { full, used })
}

/// What a request holds in Redis.
pub(super) struct Held {
    shared: Arc<Shared>,
    meters: Vec<(String, Window)>,
    places: Option<Places>,
}

/// Places of an upload, and the task that keeps them.
struct Places {
    keys: Vec<String>,
    token: String,
    renewal: Option<AbortHandle>,
}

impl Held {
    /// Counters that bytes are charged to, and places that are kept until this is dropped.
    pub(super) fn new(shared: &Arc<Shared>, meters: Vec<(String, Window)>, places: Vec<String>, token: String) -> Self {
        let places = (!places.is_empty()).then(|| {
            let renewal = spawn(renew(shared.clone(), places.clone(), token.clone()));
            Places { keys: places, token, renewal }
        });
        Self { shared: shared.clone(), meters, places }
    }

    pub(super) fn is_metered(&self) -> bool {
        !self.meters.is_empty()
    }

    /// Charges bytes. Nobody waits for it.
    pub(super) fn charge(&self, bytes: u64) {
        if self.meters.is_empty() || bytes == 0 {
            return;
        }
        let (shared, meters) = (self.shared.clone(), self.meters.clone());
        spawn(async move {
            let mut call = CHARGE.prepare_invoke();
            for (key, window) in &meters {
                call.key(key).arg(window.time_of(bytes).div_ceil(1000));
            }
            // While Redis is away nothing is counted, which its metrics say.
            let _: Result<u64, NoAnswer> = shared.run(&call).await;
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(Places { keys, token, renewal }) = self.places.take() else { return };
        if let Some(renewal) = renewal {
            renewal.abort();
        }
        let shared = self.shared.clone();
        spawn(async move {
            let mut call = LEAVE.prepare_invoke();
            keys.iter().for_each(|key| {
                call.key(key);
            });
            call.arg(token);
            // What isn't given back runs out.
            let _: Result<u64, NoAnswer> = shared.run(&call).await;
        });
    }
}

/// Keeps places for as long as it runs.
async fn renew(shared: Arc<Shared>, keys: Vec<String>, token: String) {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        let mut call = RENEW.prepare_invoke();
        keys.iter().for_each(|key| {
            call.key(key);
        });
        call.arg(&token).arg(micros(LEASE));
        let _: Result<u64, NoAnswer> = shared.run(&call).await;
    }
}

/// On the thread's own runtime; not at all when that is going down.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    Some(runtime.spawn(task).abort_handle())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
