//! Counts as numbers to divide, and back.

/// 2^52: above it a float has no fraction.
const NO_FRACTION: f64 = 4_503_599_627_370_496.0;

/// A count as a number to divide: exact below 2^53.
pub fn float(count: u64) -> f64 {
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// The whole part of a number from 0 to 2^52; what lies outside becomes the nearer end.
pub fn whole(number: f64) -> u64 {
    let within = number.floor().clamp(0.0, NO_FRACTION - 1.0);
    // Behind the addition the whole part stands in the mantissa as it is.
    (within + NO_FRACTION).to_bits() - NO_FRACTION.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_numbers_are_converted_exactly() {
        for count in [0, 1, 2, 4_294_967_295, 4_294_967_296, 999_999_999_999, 1 << 51] {
            assert_eq!(whole(float(count)), count);
            assert_eq!(whole(float(count) + 0.25), count);
        }
        assert_eq!(whole(0.999), 0);
        assert_eq!(whole(-5.0), 0);
        assert_eq!(whole(f64::MAX), (1 << 52) - 1);
    }
}
