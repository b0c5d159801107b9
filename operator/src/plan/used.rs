//! Where a volume is used, for whoever decides where a pod goes.

/// So many workstations are said.
const SAID: usize = 3;
/// The next one must be used by so much more, in percent, to take the place of another: what changes with each file helps nobody.
const CLEARLY: u64 = 25;

/// The workstations on which most is used, the most used first, as far as agents have said it. `before`: what was said last.
/// `uses`: of each workstation.
pub fn used_on<'a>(uses: impl IntoIterator<Item = (&'a str, u64)>, before: &[String]) -> Vec<String> {
    let mut uses: Vec<(u64, &str)> = uses
        .into_iter()
        .filter(|(_, uses)| *uses > 0)
        .map(|(node, uses)| {
            let is_first = before.first().is_some_and(|first| first == node);
            let bonus = if is_first { uses / 100 * CLEARLY + uses % 100 * CLEARLY / 100 } else { 0 };
            (uses.saturating_add(bonus), node)
        })
        .collect();
    uses.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.cmp(other)));
    let mut said: Vec<String> = uses.into_iter().take(SAID).map(|(_, node)| node.to_owned()).collect();
    // The order of those behind is of no use to anyone.
    if let Some((_, behind)) = said.split_first_mut() {
        behind.sort();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_used_comes_first_and_what_is_not_used_is_not_said() {
        let all = [("ws-a", 4), ("ws-b", 9), ("ws-c", 5), ("ws-d", 0)];
        assert_eq!(used_on(all, &[]), ["ws-b", "ws-a", "ws-c"]);
        assert!(used_on([("ws-d", 0)], &[]).is_empty());
    }

    #[test]
    fn it_stays_until_another_is_used_clearly_more() {
        let before = ["ws-a".to_owned()];
        let (little, clearly) = (120, 126);
        assert_eq!(used_on([("ws-a", 100), ("ws-b", little)], &before)[0], "ws-a");
        assert_eq!(used_on([("ws-a", 100), ("ws-b", clearly)], &before)[0], "ws-b");
        assert_eq!(used_on([("ws-a", 100), ("ws-b", little)], &[])[0], "ws-b");
    }
}
