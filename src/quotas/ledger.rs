//! Counters in a Redis that replicas share: all that a request asks of all its limits, in one round trip.
//!
//! What is kept is what is kept in memory: one moment for each counter, here in microseconds of Redis' own clock, so that
//! the clocks of replicas needn't agree; and for uploads a set of those under way. Everything runs out by itself.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use redis::Script;
use tokio::task::AbortHandle;

use super::window::Window;
use super::{Key, Rate};
use crate::shared::{NoAnswer, Shared};

/// How long an upload keeps its place after a gateway that died.
const LEASE: Duration = Duration::from_secs(30);

/// How long to wait before a place is given back once more, when nobody said that it was.
const LEAVE_AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

/// Answers with the position of the first counter without room (0 if there is none), and with what is used of each. Takes
/// only if all have room.
///
/// A counter's moment has the token behind it of who took last, and a place is by its token: the same question asked
/// again, because the answer to the first was lost, takes nothing more.
static ASK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local token, lease = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer, took = {0}, {}
for i, key in ipairs(KEYS) do
  local mode, amount, window = ARGV[4 * i - 1], tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 1])
  local used, full
  if mode == 'place' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    redis.call('ZREM', key, token)
    used = redis.call('ZCARD', key)
    full = used >= amount
  else
    local value = redis.call('GET', key) or '0'
    used = math.max(tonumber(string.match(value, '^[%d.]+')) - now, 0)
    took[i] = string.match(value, ' (.*)$') == token
    full = mode ~= 'look' and not took[i] and used + window / amount > window + 1
  end
  if full and answer[1] == 0 then answer[1] = i end
  answer[i + 1] = used
end
if answer[1] == 0 then
  for i, key in ipairs(KEYS) do
    local mode, amount, window = ARGV[4 * i - 1], tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 1])
    if mode == 'place' then
      redis.call('ZADD', key, now + lease, token)
      redis.call('PEXPIRE', key, math.ceil(lease / 1000))
    elseif mode ~= 'look' and not took[i] then
      local used = answer[i + 1] + (mode == 'take' and window / amount or tonumber(ARGV[4 * i + 2]))
      redis.call('SET', key, string.format('%.3f %s', now + used, token), 'PX', math.ceil(used / 1000))
      answer[i + 1] = used
    end
  end
end
for i, used in ipairs(answer) do answer[i] = math.floor(used) end
return answer
",
    )
});

/// Adds to counters what was used, whether there was room or not; what is negative was set aside and not used.
static CHARGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for i, key in ipairs(KEYS) do
  local value = redis.call('GET', key) or '0'
  local used = math.max(tonumber(string.match(value, '^[%d.]+')) - now, 0) + tonumber(ARGV[i])
  if used > 0 then
    local by = string.match(value, ' .*$') or ''
    redis.call('SET', key, string.format('%.3f%s', now + used, by), 'PX', math.ceil(used / 1000) + 1)
  else
    redis.call('DEL', key)
  end
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
    /// Whether there is any; then so many are set aside.
    Room(Window, u64),
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
        let (word, (amount, window), aside) = match mode {
            Mode::Take(window) => ("take", window.in_micros(), 0),
            Mode::Look(window) => ("look", window.in_micros(), 0),
            Mode::Room(window, lump) => ("room", window.in_micros(), window.time_of(*lump).div_ceil(1000).max(1)),
            Mode::Place(most) => ("place", (*most, 0), 0),
        };
        call.key(key).arg(word).arg(amount).arg(window).arg(aside);
    }
    let numbers: Vec<u64> = shared.run(&call).await?;
    read(&numbers, questions)
}

/// What the numbers say, unless they are the answer to some other question.
fn read(numbers: &[u64], questions: &[Question]) -> Result<Answer, NoAnswer> {
    let (full, used) = numbers.split_first().filter(|(_, used)| used.len() == questions.len()).ok_or(NoAnswer)?;
    let full = usize::try_from(*full).ok().filter(|full| *full <= questions.len()).ok_or(NoAnswer)?.checked_sub(1);
    let used = used.iter().zip(questions).map(|(used, question)| match question.mode {
        Mode::Place(_) => *used,
        _ => used.saturating_mul(1000),
    });
    Ok(Answer { full, used: used.collect() })
}

/// What a request holds in Redis.
pub(super) struct Held {
    shared: Arc<Shared>,
    places: Option<Places>,
}

/// Places of an upload, and the task that keeps them.
struct Places {
    keys: Vec<String>,
    token: String,
    renewal: Option<AbortHandle>,
    /// Whether Redis said that it has them.
    certain: bool,
}

/// What a counter is to be told.
pub(super) struct Charge {
    pub(super) key: String,
    pub(super) micros: i64,
    /// The counter in memory, and the bytes that it is told when Redis isn't there.
    pub(super) here: (Rate, Key, u64),
}

impl Charge {
    pub(super) fn tell_here(&self) {
        let (rate, owner, bytes) = &self.here;
        if *bytes > 0 {
            rate.counts.charge(owner, rate.window, *bytes, Instant::now());
        }
    }
}

impl Held {
    /// Before these places are asked for: they are given back when this is dropped, taken or not.
    pub(super) fn asking(shared: &Arc<Shared>, keys: Vec<String>, token: &str) -> Self {
        let token = token.to_owned();
        let places = (!keys.is_empty()).then_some(Places { keys, token, renewal: None, certain: false });
        Self { shared: shared.clone(), places }
    }

    /// Redis said that nothing was taken.
    pub(super) fn got_nothing(&mut self) {
        self.places = None;
    }

    /// Redis said that all was taken. The places are kept until this is dropped.
    pub(super) fn got_all(&mut self) {
        if let Some(places) = &mut self.places {
            places.certain = true;
            places.renewal = spawn(renew(self.shared.clone(), places.keys.clone(), places.token.clone()));
        }
    }

    /// Charges counters. Nobody waits for it.
    ///
    /// # Errors
    ///
    /// The charges, if too much is under way already.
    pub(super) fn charge(&self, charges: Vec<Charge>) -> Result<(), Vec<Charge>> {
        let Some(errand) = self.shared.errand() else { return Err(charges) };
        let shared = self.shared.clone();
        spawn(async move {
            let _errand = errand;
            let mut call = CHARGE.prepare_invoke();
            for Charge { key, micros, .. } in &charges {
                call.key(key).arg(*micros);
            }
            if shared.run::<u64>(&call).await.is_err() {
                charges.iter().for_each(Charge::tell_here);
            }
        });
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(places) = self.places.take() else { return };
        if let Some(renewal) = &places.renewal {
            renewal.abort();
        }
        // With too much under way, the places run out by themselves.
        let Some(errand) = self.shared.errand() else { return };
        let shared = self.shared.clone();
        spawn(async move {
            leave(&shared, &places).await;
            drop(errand);
        });
    }
}

/// Gives places back, again if nobody says that it was done. A question that got no answer may still be on its way, and
/// may come in behind: its places are given back twice.
async fn leave(shared: &Shared, places: &Places) {
    let mut times = if places.certain { 1 } else { 2 };
    let mut call = LEAVE.prepare_invoke();
    places.keys.iter().for_each(|key| {
        call.key(key);
    });
    call.arg(&places.token);
    for pause in std::iter::once(Duration::ZERO).chain(LEAVE_AGAIN) {
        tokio::time::sleep(pause).await;
        if shared.run::<u64>(&call).await.is_ok() {
            times -= 1;
        }
        if times == 0 {
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_some_other_question_is_none() {
        let questions = [Question { key: "a".to_owned(), mode: Mode::Place(2) }];
        assert_eq!(read(&[0, 1], &questions), Ok(Answer { full: None, used: vec![1] }));
        assert_eq!(read(&[1, 2], &questions), Ok(Answer { full: Some(0), used: vec![2] }));
        for other in [&[][..], &[0], &[0, 1, 1], &[2, 1], &[u64::MAX, 1]] {
            assert_eq!(read(other, &questions), Err(NoAnswer), "{other:?}");
        }
    }
}
