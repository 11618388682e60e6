//! Small charts of the last minutes, as drawings in the page.
//!
//! A drawing is stretched to the width there is, so words stand beside it and not in it.

use std::fmt::Write as _;

use super::html::Html;
use super::time;
use crate::telemetry::{Counts, Fate, STEPS_KEPT, Step};

/// A step is so wide in the drawing, which is so high.
const WIDTH: usize = 4;
const HEIGHT: f64 = 100.0;

/// Requests a second, one kind upon the other.
pub(super) fn requests(html: &mut Html, steps: &[Step]) {
    let rate = |step: &Step, fate| step.per_second(step.counts.requests(fate));
    let most = steps.iter().map(|step| step.per_second(step.counts.all_requests())).fold(0.0, f64::max);
    let top = rounded_up(most);
    let labels = [time::rate(top), time::rate(top / 2.0), "0".to_owned()];
    let note = format!("peak {}/s", time::rate(most));
    open(html, "Requests per second", &note, &labels);
    for fate in Fate::ALL {
        let below =
            |step: &Step| Fate::ALL.iter().take_while(|other| *other != fate).map(|f| rate(step, *f)).sum::<f64>();
        let mut path = String::new();
        for (x, step) in positions(steps) {
            let (from, height) = (below(step), rate(step, *fate));
            if height > 0.0 {
                let (bottom, high) = (HEIGHT - from / top * HEIGHT, height / top * HEIGHT);
                // Writing to a string doesn't fail.
                let _ = write!(path, "M{x} {bottom:.1}v-{high:.1}h{WIDTH}v{high:.1}z");
            }
        }
        html.raw("<path").class(&["area", class(*fate)]).attribute("d", path).raw("/>");
    }
    close(html, Fate::ALL.iter().map(|fate| (class(*fate), fate.as_str())));
}

const fn class(fate: Fate) -> &'static str {
    match fate {
        Fate::Served => "s1",
        Fate::Refused => "s2",
        Fate::Broken => "s3",
        Fate::Failed => "s4",
    }
}

/// How long requests took, on a logarithmic scale: what matters is between a millisecond and minutes.
pub(super) fn latency(html: &mut Html, steps: &[Step]) {
    /// Half, and all but one in a hundred.
    const SHARES: [(f64, &str, &str); 2] = [(0.99, "s2", "99 % within"), (0.5, "s1", "half within")];
    /// A tenth of a millisecond, as a power of ten of seconds.
    const LOWEST: f64 = -4.0;
    let quantile = |step: &Step, share| step.counts.quantile(share).filter(|_| step.counts.all_requests() > 0);
    let most = steps.iter().filter_map(|step| quantile(step, 0.99)).fold(0.0, f64::max);
    let highest = most.max(0.01).log10().ceil();
    let middle = f64::midpoint(LOWEST, highest);
    let labels = [highest, middle, LOWEST].map(|power| time::seconds(10_f64.powf(power)));
    let all = Step::sum(steps).counts;
    let whole = |share| all.quantile(share).map_or_else(|| "–".to_owned(), time::seconds);
    open(html, "Latency", &format!("15 min: half {}, 99 % {}", whole(0.5), whole(0.99)), &labels);
    let height = |seconds: f64| ((seconds.log10() - LOWEST) / (highest - LOWEST)).clamp(0.0, 1.0);
    for (share, class, _) in SHARES {
        line(html, class, steps, |step| quantile(step, share).map(height));
    }
    close(html, SHARES.iter().rev().map(|(_, class, name)| (*class, *name)));
}

/// Bytes a second.
pub(super) fn transfer(html: &mut Html, steps: &[Step]) {
    type Direction = (fn(&Counts) -> u64, &'static str, &'static str);
    const DIRECTIONS: [Direction; 2] = [(Counts::sent, "s1", "to clients"), (Counts::received, "s5", "from clients")];
    let rate = |step: &Step, (count, ..): &Direction| step.per_second(count(&step.counts));
    let most = steps.iter().flat_map(|step| DIRECTIONS.iter().map(move |d| rate(step, d))).fold(0.0, f64::max);
    let top = most.max(1024.0);
    let labels = [time::bytes(top), time::bytes(top / 2.0), "0".to_owned()];
    let all = Step::sum(steps).counts;
    let amount =
        |count| time::bytes(Step { time: std::time::Duration::from_secs(1), ..Step::default() }.per_second(count));
    open(
        html,
        "Bytes per second",
        &format!("15 min: {} out, {} in", amount(all.sent()), amount(all.received())),
        &labels,
    );
    for direction in &DIRECTIONS {
        line(html, direction.1, steps, |step| Some(rate(step, direction) / top));
    }
    close(html, DIRECTIONS.iter().map(|(_, class, name)| (*class, *name)));
}

fn open(html: &mut Html, title: &'static str, note: &str, labels: &[String; 3]) {
    html.raw("<figure><figcaption>").element("b", title).raw(" ").element("small", note).raw("</figcaption>");
    html.raw("<div class=\"plot\"><ol>");
    labels.iter().for_each(|label| {
        html.element("li", label);
    });
    html.raw("</ol><svg viewBox=\"0 0 720 100\" preserveAspectRatio=\"none\" role=\"img\"");
    html.attribute("aria-label", format_args!("{title}, the last 15 minutes; {note}")).raw(">");
    html.raw("<path class=\"grid\" d=\"M0 .5h720M0 50h720M0 99.5h720M240 0v100M480 0v100\"/>");
}

fn close(html: &mut Html, key: impl Iterator<Item = (&'static str, &'static str)>) {
    html.raw(
        "</svg></div><div class=\"ticks\"><span>15 min ago</span><span>10</span><span>5</span><span>now</span></div>",
    );
    html.raw("<ul class=\"key\">");
    for (class, name) in key {
        html.raw("<li").class(&[class]).raw(">").text(name).raw("</li>");
    }
    html.raw("</ul></figure>");
}

/// A line of steps at heights from 0 to 1, with gaps where there is none.
fn line(html: &mut Html, class: &'static str, steps: &[Step], height: impl Fn(&Step) -> Option<f64>) {
    let mut path = String::new();
    let mut goes_on = false;
    for (x, step) in positions(steps) {
        let Some(height) = height(step) else {
            goes_on = false;
            continue;
        };
        let y = HEIGHT - height * HEIGHT;
        let command = if goes_on { 'L' } else { 'M' };
        let _ = write!(path, "{command}{x} {y:.1}h{WIDTH}");
        goes_on = true;
    }
    html.raw("<path").class(&["line", class]).attribute("d", path).raw("/>");
}

/// The steps with their places; the last is at the right edge.
fn positions(steps: &[Step]) -> impl Iterator<Item = (usize, &Step)> {
    let first = STEPS_KEPT.saturating_sub(steps.len());
    steps.iter().enumerate().map(move |(index, step)| ((first + index) * WIDTH, step))
}

/// 1, 2 or 5 times a power of ten, at least this.
fn rounded_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|top| *top >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        for (value, top) in [(0.0, 1.0), (0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (7.0, 10.0), (4321.0, 5000.0)] {
            assert!((rounded_up(value) - top).abs() < 1e-9, "{value}: {}", rounded_up(value));
        }
    }

    #[test]
    fn an_idle_gateway_has_charts_without_a_number_that_is_none() {
        let mut html = Html::default();
        for steps in [vec![], vec![Step::default(); 3]] {
            requests(&mut html, &steps);
            latency(&mut html, &steps);
            transfer(&mut html, &steps);
        }
        let page = html.finish();
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}
