//! argmax / plain: the lowest index of the largest value.
//!
//! Sixteen running maxima first, then the first index that holds their maximum: two passes without a branch per element,
//! which any vector unit does at the speed of its loads.

/// The lowest index of the largest value. NaN never wins; of no values, or only NaN, it is 0.
pub fn argmax(values: &[f32]) -> u32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (body, tail) = values.as_chunks::<16>();
    for chunk in body {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            // Written so that a NaN compares false and is left out.
            *lane = if v > *lane { v } else { *lane };
        }
    }
    let largest = lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |best, &v| if v > best { v } else { best });
    // Where all are NaN nothing equals the maximum of minus infinity.
    values.iter().position(|&v| v == largest).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lowest_index() {
        let mut v = vec![1.0; 100];
        v[40] = 2.0;
        v[41] = 2.0;
        v[99] = 2.0;
        assert_eq!(argmax(&v), 40);
        assert_eq!(argmax(&[3.0; 33]), 0);
    }

    #[test]
    fn the_maximum_is_found_wherever_it_stands() {
        for n in [1, 15, 16, 17, 49_152, 49_153] {
            for at in [0, n / 2, n - 1] {
                let mut v = vec![-5.0; n];
                v[at] = -1.0;
                assert_eq!(argmax(&v), at as u32);
            }
        }
    }

    #[test]
    fn nan_never_wins_and_minus_infinity_is_a_value() {
        assert_eq!(argmax(&[f32::NAN, 1.0, f32::NAN, 2.0]), 3);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 1);
        assert_eq!(argmax(&[f32::NAN; 20]), 0);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 20]), 0);
        assert_eq!(argmax(&[]), 0);
    }
}
