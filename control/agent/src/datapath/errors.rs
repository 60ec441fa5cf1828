//! Errors of the slow path and of the driver, as the daemon reports them.

use super::interface::DatapathError;

impl From<culvert_slowpath::Error> for DatapathError {
    fn from(error: culvert_slowpath::Error) -> Self {
        use culvert_slowpath::Error;
        let detail = error.to_string();
        match error {
            Error::Frame { .. } => DatapathError::Invalid { detail },
            Error::Nic(error) => error.into(),
            Error::Ended | Error::Timeout { .. } => DatapathError::Unavailable { detail },
            _ => DatapathError::Failed { detail },
        }
    }
}

impl From<culvert_pf::Error> for DatapathError {
    fn from(error: culvert_pf::Error) -> Self {
        DatapathError::unavailable(&error)
    }
}

impl From<culvert_offload::Error> for DatapathError {
    fn from(error: culvert_offload::Error) -> Self {
        use culvert_offload::Error;
        match error {
            Error::Refused { .. } | Error::TooLong { .. } | Error::NoVmq { .. } => {
                DatapathError::Failed { detail: error.to_string() }
            }
            // It does not answer now.
            _ => DatapathError::unavailable(&error),
        }
    }
}
