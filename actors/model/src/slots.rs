/// How many slots of a schedule did not run when they were due, since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// They ran, late.
    pub late: u64,
    /// They were passed over.
    pub dropped: u64,
}
