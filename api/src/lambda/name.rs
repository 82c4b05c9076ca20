//! How Lambda's clients name a function: `price`, `price:$LATEST`, `000000000000:function:price`, or its ARN.

use bus::Name;

use super::error::LambdaError;

/// A function, and which version of it. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) function: String,
    pub(super) qualifier: Option<String>,
}

impl Named {
    /// Reads the name of a path, already decoded, and the `Qualifier` beside it.
    pub(super) fn read(name: &str, qualifier: Option<&str>) -> Result<Self, LambdaError> {
        let parts: Vec<&str> = name.split(':').collect();
        let (function, within) = match parts[..] {
            [function] | ["arn", _, "lambda", _, _, "function", function] | [_, "function", function] => {
                (function, None)
            }
            [function, qualifier]
            | ["arn", _, "lambda", _, _, "function", function, qualifier]
            | [_, "function", function, qualifier] => (function, Some(qualifier)),
            _ => return Err(LambdaError::Parameter(format!("`{name}` is no name of a function, nor its ARN"))),
        };
        let qualifier = match (within, qualifier.filter(|qualifier| !qualifier.is_empty())) {
            (Some(within), Some(beside)) if within != beside => {
                let text = format!("the name says `{within}` and Qualifier says `{beside}`: leave one out");
                return Err(LambdaError::Parameter(text));
            }
            (within, beside) => within.or(beside).map(str::to_owned),
        };
        Ok(Self { function: function.to_owned(), qualifier })
    }

    /// The function's name in the config; none: it cannot be one.
    pub(super) fn function(&self) -> Option<Name> {
        self.function.parse().ok()
    }
}

/// The ARN of a function.
pub(super) fn arn(function: &str) -> String {
    format!("arn:aws:lambda:us-east-1:000000000000:function:{function}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("price", None, ("price", None))]
    #[case("price", Some("$LATEST"), ("price", Some("$LATEST")))]
    #[case("price:live", None, ("price", Some("live")))]
    #[case("price:live", Some("live"), ("price", Some("live")))]
    #[case("000000000000:function:price", None, ("price", None))]
    #[case("000000000000:function:price:7", None, ("price", Some("7")))]
    #[case("arn:aws:lambda:us-east-1:000000000000:function:price", None, ("price", None))]
    #[case("arn:aws:lambda:us-east-1:000000000000:function:price:live", Some(""), ("price", Some("live")))]
    fn every_form_of_a_name_is_read(
        #[case] name: &str,
        #[case] qualifier: Option<&str>,
        #[case] expect: (&str, Option<&str>),
    ) {
        let named = Named::read(name, qualifier).unwrap();
        assert_eq!((named.function.as_str(), named.qualifier.as_deref()), expect);
    }

    #[rstest]
    #[case("price:live", Some("old"))]
    #[case("a:b:c:d:e", None)]
    #[case("arn:aws:sqs:us-east-1:000000000000:queue", None)]
    fn what_is_no_name_is_refused(#[case] name: &str, #[case] qualifier: Option<&str>) {
        assert!(matches!(Named::read(name, qualifier), Err(LambdaError::Parameter(_))));
    }
}
