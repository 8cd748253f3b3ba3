//! Who is who in a farm that other machines can reach: certificates of the farm's own authority, and how they are used.
//!
//! A farm that only this machine can reach needs none of this. Every other one has an authority, kept by its coordinator;
//! each member proves by a certificate of it who it is ([`identity`]), on both ends of every connection. Whoever joins shows a token
//! once ([`join_string`]). What a member may do is decided by the coordinator's table and by each worker, not here.
//! Invariant: a private key never leaves the machine that made it, and is readable for its owner only.

pub mod authority;
pub mod credentials;
pub mod enrolment_rpc;
pub mod identity;
pub mod join_string;
pub mod listening;
pub mod tls;
