// Package tenant keeps tenants apart: blocks of ranges, quotas, and which
// containers a socket may reach. Nothing is in it yet: tenants arrive with
// sockets of their own.
package tenant
