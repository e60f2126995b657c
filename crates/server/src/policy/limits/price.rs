//! Money: what tokens of a model cost. An amount is in billionths of a currency, which is the one that prices and budgets are
//! both in; which one that is nobody here needs to know.

use std::collections::HashMap;

pub use hearth_engine::hub::Price;

use crate::wire::options::Usage;

/// Billionths in one of the currency.
pub(super) const UNIT: f64 = 1e9;

/// What each model costs, by its name.
#[derive(Debug, Clone, Default)]
pub struct Prices(HashMap<String, Price>);

impl Prices {
    /// Of those names; a later one goes before an earlier one.
    pub fn new(prices: impl IntoIterator<Item = (String, Price)>) -> Self {
        Self(prices.into_iter().collect())
    }

    /// Of a model, if it has one.
    pub(super) fn of(&self, model: &str) -> Option<Price> {
        self.0.get(model).copied()
    }
}

/// What so many tokens cost, rounded up to a billionth.
pub(super) fn cost(price: Price, usage: Usage) -> i64 {
    let tokens =
        |count: usize, millionths: u64| u128::try_from(count).unwrap_or(u128::MAX).saturating_mul(millionths.into());
    // Millionths for a million tokens are millionths of millionths for one.
    let sum = tokens(usage.prompt_tokens, price.input).saturating_add(tokens(usage.completion_tokens, price.output));
    i64::try_from(sum.div_ceil(1000)).unwrap_or(i64::MAX)
}

/// An amount as people write it.
pub(super) fn shown(amount: i64) -> String {
    let text = format!("{:.6}", amount as f64 / UNIT);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_exact_and_rounded_up() {
        let price = Price { input: 37_500, output: 2_000_000 };
        assert_eq!(cost(price, Usage::new(1_000_000, 0)), 37_500_000);
        assert_eq!(cost(price, Usage::new(1, 0)), 38);
        assert_eq!(cost(price, Usage::new(0, 3)), 6000);
        assert_eq!(cost(price, Usage::default()), 0);
        assert_eq!(cost(Price { input: u64::MAX, output: 1 }, Usage::new(usize::MAX - 1, 1)), i64::MAX);
        assert_eq!(
            (shown(12_500_000_000), shown(6000), shown(1_000_000_000)),
            ("12.5".into(), "0.000006".into(), "1".into())
        );
    }
}
