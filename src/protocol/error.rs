//! The errors for requests that cannot be understood, in memcached's own words.

use std::fmt;

use crate::command::{Failure, Unavailable};

/// Declares each error with its line.
macro_rules! errors {
    ($($variant:ident, $text:literal;)*) => {
        /// Why a request was refused. The client is at fault, except where there was no memory.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProtocolError { $(#[doc = concat!("`", $text, "`")] $variant,)* }

        impl ProtocolError {
            /// Every error, in the order of this list.
            #[cfg(test)]
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The line that memcached answers, without its end.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

errors! {
    Unknown, "ERROR";
    BadFormat, "CLIENT_ERROR bad command line format";
    KeyTooLong, "CLIENT_ERROR bad command line format";
    BadNumber, "CLIENT_ERROR bad command line format";
    BadDataChunk, "CLIENT_ERROR bad data chunk";
    DeleteUsage, "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
    InvalidExptime, "CLIENT_ERROR invalid exptime argument";
    InvalidDelta, "CLIENT_ERROR invalid numeric delta argument";
    DuplicateFlag, "CLIENT_ERROR duplicate flag";
    InvalidFlag, "CLIENT_ERROR invalid flag";
    InvalidOrDuplicateFlag, "CLIENT_ERROR invalid or duplicate flag";
    TooManyFlags, "CLIENT_ERROR options flags are too long";
    BadToken, "CLIENT_ERROR bad token in command line format";
    KeyDecoding, "CLIENT_ERROR error decoding key";
    OpaqueTooLong, "CLIENT_ERROR opaque token too long";
    InvalidSetMode, "CLIENT_ERROR invalid mode for ms M token";
    InvalidArithmeticMode, "CLIENT_ERROR invalid mode for ma M token";
    InvalidInitial, "CLIENT_ERROR invalid numeric initial value";
    InvalidDeltaValue, "CLIENT_ERROR invalid numeric delta value";
    NoRoomReading, "SERVER_ERROR out of memory reading request";
    NoRoomWriting, "SERVER_ERROR out of memory writing get response";
    MemlimitTooSmall, "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m";
    MemlimitTooLarge, "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes";
    SleepTooLong, "CLIENT_ERROR sleep must be one second or less";
    ShutdownMode, "CLIENT_ERROR invalid shutdown mode";
    BadClass, "BADCLASS invalid class id";
    NothingToCrawl, "NOTSTARTED no items to crawl";
    CrawlerEnabled, "ERROR failed to start lru crawler thread";
    CrawlerDisabled, "CLIENT_ERROR lru crawler disabled";
    MetaDumpForbidden, "ERROR metadump not allowed";
    KeyDumpForbidden, "ERROR key dump not allowed";
    MetaDumpPipelined, "ERROR cannot pipeline other commands before metadump";
    KeyDumpPipelined, "ERROR cannot pipeline other commands before mgdump";
    WatchPipelined, "ERROR cannot pipeline other commands before watch";
    HotAndWarm, "ERROR hot and warm pcts must not exceed 80";
    AgeFactor, "ERROR hot/warm age factors must be greater than 0";
    DetailUsage, "CLIENT_ERROR usage: stats detail on|off|dump";
    BadLine, "CLIENT_ERROR bad command line";
    NoSlabs, "CLIENT_ERROR this server has no slabs to move";
    NoExtstore, "CLIENT_ERROR this server has no external storage";
    Unauthenticated, "CLIENT_ERROR unauthenticated";
    LoginTermination, "CLIENT_ERROR bad command line termination";
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for ProtocolError {}

/// The error line for a failure.
pub fn failure_line(failure: Failure) -> &'static str {
    match failure {
        Failure::NonNumeric => "CLIENT_ERROR cannot increment or decrement non-numeric value",
        Failure::TooLarge => "SERVER_ERROR object too large for cache",
        Failure::OutOfMemory => "SERVER_ERROR out of memory storing object",
        Failure::Unavailable(Unavailable::Unreachable) => "SERVER_ERROR the owner of this key is unreachable",
        Failure::Unavailable(Unavailable::Unanswered) => {
            "SERVER_ERROR the owner of this key did not answer; the command may have been executed"
        }
        Failure::Unavailable(Unavailable::Overloaded) => {
            "SERVER_ERROR too much waits for the owner of this key"
        }
        Failure::Unavailable(Unavailable::Moved) => "SERVER_ERROR the owner of this key changed, try again",
        Failure::Unavailable(Unavailable::Refused) => {
            "SERVER_ERROR the owner of this key cannot answer for it now"
        }
        Failure::Unavailable(Unavailable::Fenced) => {
            "SERVER_ERROR this node is out of touch with most of its cluster"
        }
        Failure::Unavailable(Unavailable::NoOwner) => "SERVER_ERROR this node has not joined its cluster yet",
    }
}
