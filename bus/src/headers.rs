//! Header names of our own, beside CloudEvents' `ce-…`. Strings that must agree live here only.

/// The delivery's id.
pub const DELIVERY: &str = "fnbus-delivery";
/// Which publication of the delivery this message is.
pub const PUBLICATION: &str = "fnbus-publication";
/// The node that owns the delivery.
pub const OWNER: &str = "fnbus-owner";
/// Which version of the function, where it is named.
pub const VERSION: &str = "fnbus-version";
/// The payload's shape.
pub const FORMAT: &str = "fnbus-format";
/// The trigger's facts, JSON.
pub const META: &str = "fnbus-meta";
/// The name of the replay a delivery belongs to.
pub const REPLAY: &str = "fnbus-replay";
/// Present when the body was too large for the message and stays in the owner's log.
pub const BY_REFERENCE: &str = "fnbus-by-reference";
