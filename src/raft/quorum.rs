//! Majorities. One function answers every "did enough voters …?" of the protocol, because
//! implementations that count votes, commits, reads and contacts in different places get one of
//! them wrong.

/// How many of `voters` make a majority: any two majorities share a member. Paper §5.2.
pub(super) fn majority(voters: usize) -> usize {
    assert!(voters > 0, "a configuration has at least one voter");
    voters / 2 + 1
}

/// The greatest value that a majority has reached, given what each voter has reached. Sorts
/// `values`.
///
/// With match indexes it answers "what is stored on a majority?", with moments "since when has a
/// majority been heard?", with rounds "what did a majority confirm?", with booleans "did a majority
/// say yes?".
pub(super) fn reached_by_majority<T: Ord + Copy>(values: &mut [T]) -> T {
    let need = majority(values.len());
    values.sort_unstable_by(|left, right| right.cmp(left));
    values[need - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stupid twin: try every value as the answer and count who reached it.
    fn counted(values: &[u8]) -> u8 {
        let reached = |value: u8| values.iter().filter(|other| **other >= value).count();
        let enough = |value: &&u8| 2 * reached(**value) > values.len();
        *values.iter().filter(enough).max().expect("the least value is reached by all")
    }

    #[test]
    fn the_pick_equals_a_count_over_all_combinations_of_up_to_five_voters() {
        for voters in 1..=5_u32 {
            for combination in 0..4_u32.pow(voters) {
                let mut rest = combination;
                let mut values = Vec::new();
                for _ in 0..voters {
                    values.push(u8::try_from(rest % 4).expect("below four"));
                    rest /= 4;
                }
                let expected = counted(&values);
                assert_eq!(reached_by_majority(&mut values), expected, "{values:?}");
            }
        }
    }

    #[test]
    fn two_majorities_always_share_a_voter() {
        for voters in 1..=31 {
            assert!(2 * majority(voters) > voters);
            assert!(2 * (majority(voters) - 1) <= voters, "and no fewer would do");
        }
    }
}
