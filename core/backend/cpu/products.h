// Single-threaded products of panels by oneDNN, called inside the pool's tasks.
#pragma once

namespace moebius {

class Products {};

}  // namespace moebius
