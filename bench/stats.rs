//! Medians, ratios and how far they spread.

use serde_json::{Value, json};
use std::fmt;

/// Some measurements of one thing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    /// The median.
    pub(crate) median: f64,
    /// The least.
    pub(crate) least: f64,
    /// The most.
    pub(crate) most: f64,
    /// How many.
    pub(crate) count: usize,
}

impl Spread {
    /// Of these; `None` of none. What is no number is left out.
    ///
    /// Of six independent measurements all lie on one side of the true median once in 32 times: so
    /// least and most of six are an interval that holds it with 97 % confidence, of five with 94.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted.len() / 2;
        let lower = (sorted.len() - 1) / 2;
        let median = f64::midpoint(sorted[lower], sorted[upper]);
        Some(Spread { median, least, most, count: sorted.len() })
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.least, "max": self.most, "n": self.count })
    }
}

/// A ratio as people say it: `3.1x` or, below one, `1/12`.
pub(crate) struct Ratio(pub(crate) f64);

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ratio(ratio) = *self;
        if ratio >= 0.5 {
            write!(f, "{}x", significant(ratio))
        } else {
            write!(f, "1/{}", significant(1.0 / ratio))
        }
    }
}

/// With two or three digits, as many as a measurement carries.
pub(crate) fn significant(number: f64) -> String {
    if number >= 100.0 {
        format!("{number:.0}")
    } else if number >= 10.0 {
        format!("{number:.1}")
    } else if number >= 0.1 {
        format!("{number:.2}")
    } else {
        format!("{number:.4}")
    }
}

impl Spread {
    /// As a ratio and its spread.
    pub(crate) fn ratio(&self) -> String {
        let Spread { median, least, most, .. } = *self;
        format!("{} [{}..{}]", Ratio(median), Ratio(least), Ratio(most))
    }
}
