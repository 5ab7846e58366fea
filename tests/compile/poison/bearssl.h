#error "PYSOCK_NO_SSL must compile where there is no BearSSL"
