use ractor::RpcReplyPort;

/// What every actor of a generation understands beside its own messages. Each room's message enum takes these by
/// `From<Lifecycle>`.
pub enum Lifecycle {
    /// From standby to work: accept, tick, claim. Nothing in it can fail. Sent again to an actor that was restarted
    /// while its generation was active.
    Activate,
    /// Stop taking new work; answered when what was begun is finished.
    Drain(RpcReplyPort<()>),
    /// Panic now. Only tests send it, to prove that the actor is restarted.
    Crash,
}
