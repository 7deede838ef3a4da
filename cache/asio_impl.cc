// The bodies of Asio's and Beast's non-template functions, compiled once for the whole program.
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
