pub(crate) const CLERK_JWT_KEY: &str = include_str!("clerk_jwt_key.pem");
