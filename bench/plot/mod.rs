//! Pictures of the figures, as SVG.

mod chart;
mod scale;

pub(crate) use chart::{Chart, Line, Point};
pub(crate) use scale::Scale;
