//! From numbers to places on the paper, and the numbers that stand beside an axis.

/// How an axis counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scale {
    /// Evenly, from 0.
    Even,
    /// By powers of ten.
    Powers,
}

/// An axis that holds all its numbers.
#[derive(Clone, Debug)]
pub(super) struct Range {
    scale: Scale,
    low: f64,
    high: f64,
    /// The numbers that are written, ascending.
    pub(super) ticks: Vec<f64>,
}

impl Range {
    /// Holds all of `numbers`.
    pub(super) fn of(scale: Scale, numbers: &[f64]) -> Range {
        let known = numbers.iter().copied().filter(|number| number.is_finite());
        match scale {
            Scale::Even => Range::even(known.fold(0.0, f64::max)),
            Scale::Powers => {
                let positive: Vec<f64> = known.filter(|number| *number > 0.0).collect();
                let low = positive.iter().copied().fold(f64::INFINITY, f64::min);
                let high = positive.iter().copied().fold(0.0, f64::max);
                if high > 0.0 { Range::powers(low, high) } else { Range::powers(1.0, 10.0) }
            }
        }
    }

    /// From 0 to a round number of steps of 1, 2 or 5 times a power of ten.
    fn even(most: f64) -> Range {
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / 5.0;
        let power = 10.0_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|times| times * power)
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power);
        let ticks: Vec<f64> = std::iter::successors(Some(0.0), |tick| Some(tick + step))
            .take_while(|tick| *tick < most + step * 0.999)
            .collect();
        let high = ticks.last().copied().unwrap_or(most);
        Range { scale: Scale::Even, low: 0.0, high, ticks }
    }

    /// From one power of ten to another; 2 and 5 are written too if there is room.
    fn powers(low: f64, high: f64) -> Range {
        let (first, last) = (low.log10().floor(), high.log10().ceil());
        let last = if last > first { last } else { first + 1.0 };
        let steps: &[f64] = if last - first > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = std::iter::successors(Some(first), |power| Some(power + 1.0))
            .take_while(|power| *power <= last);
        let ticks: Vec<f64> = powers
            .flat_map(|power| steps.iter().map(move |step| step * 10.0_f64.powf(power)))
            .collect();
        // The ends are numbers that are written, as near to the data as there are any.
        let low = ticks.iter().copied().rfind(|tick| *tick <= low * 1.001).unwrap_or(low);
        let high = ticks.iter().copied().find(|tick| *tick >= high * 0.999).unwrap_or(high);
        let high = if high > low { high } else { low * 10.0 };
        let ticks = ticks.into_iter().filter(|tick| (low..=high * 1.001).contains(tick)).collect();
        Range { scale: Scale::Powers, low, high, ticks }
    }

    /// Where a number lies, from 0 at the low end to 1 at the high one; `None` if it has no place.
    pub(super) fn place(&self, number: f64) -> Option<f64> {
        let place = match self.scale {
            Scale::Even => (number - self.low) / (self.high - self.low),
            Scale::Powers => (number / self.low).ln() / (self.high / self.low).ln(),
        };
        place.is_finite().then(|| place.clamp(0.0, 1.0))
    }
}

/// A number as an axis says it: `0.5`, `20`, `3k`, `1.5M`.
pub(super) fn label(number: f64) -> String {
    let (scaled, unit) = if number >= 1e6 {
        (number / 1e6, "M")
    } else if number >= 1e3 {
        (number / 1e3, "k")
    } else {
        (number, "")
    };
    let mut text = format!("{scaled:.3}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + unit
}
