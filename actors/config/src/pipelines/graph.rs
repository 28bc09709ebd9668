//! Walking through graphs that are given as lists of successors. Without recursion: chains may be long.

/// What a walk through all nodes found.
pub(super) struct Walk {
    /// One for each edge that leads back: the nodes from where it leads to.
    pub(super) cycles: Vec<Vec<usize>>,
    /// All nodes, each after its successors, as far as there are no cycles.
    pub(super) finished: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Unseen,
    Open,
    Done,
}

/// Goes through the graph depth first, in the order of the indexes.
pub(super) fn walk(successors: &[Vec<usize>]) -> Walk {
    let mut found = Walk { cycles: Vec::new(), finished: Vec::with_capacity(successors.len()) };
    let mut marks = vec![Mark::Unseen; successors.len()];
    for root in 0..successors.len() {
        if marks[root] == Mark::Unseen {
            from(root, successors, &mut marks, &mut found);
        }
    }
    found
}

fn from(root: usize, successors: &[Vec<usize>], marks: &mut [Mark], found: &mut Walk) {
    marks[root] = Mark::Open;
    let mut open = vec![(root, 0)];
    while let Some((node, next)) = open.last_mut() {
        let Some(successor) = successors[*node].get(*next).copied() else {
            marks[*node] = Mark::Done;
            found.finished.push(*node);
            open.pop();
            continue;
        };
        *next += 1;
        match marks[successor] {
            Mark::Unseen => {
                marks[successor] = Mark::Open;
                open.push((successor, 0));
            }
            Mark::Open => {
                let from = open.iter().position(|(node, _)| *node == successor).unwrap_or(0);
                found.cycles.push(open[from..].iter().map(|(node, _)| *node).collect());
            }
            Mark::Done => {}
        }
    }
}

/// `a -> b -> a`.
pub(super) fn circle<'n>(cycle: &[usize], name: impl Fn(usize) -> &'n str) -> String {
    let back = cycle.first().copied();
    cycle.iter().copied().chain(back).map(name).collect::<Vec<_>>().join(" -> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_found_once_and_successors_are_finished_first() {
        let found = walk(&[vec![1, 2], vec![3], vec![3], vec![]]);
        assert!(found.cycles.is_empty());
        assert_eq!(found.finished, [3, 1, 2, 0]);
        let found = walk(&[vec![1], vec![2, 1], vec![0]]);
        assert_eq!(found.cycles, [vec![0, 1, 2], vec![1]]);
        assert_eq!(circle(&found.cycles[0], |n| ["a", "b", "c"][n]), "a -> b -> c -> a");
    }

    #[test]
    fn a_long_chain_does_not_exhaust_the_stack() {
        let last = 199_999;
        let chain: Vec<_> = (0..=last).map(|n| if n < last { vec![n + 1] } else { vec![] }).collect();
        assert_eq!(walk(&chain).finished.len(), 200_000);
    }
}
