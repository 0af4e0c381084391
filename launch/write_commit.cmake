# cmake -D SOURCE=REPOSITORY -D OUT=FILE -P write_commit.cmake: FILE defines the commit that is checked out now,
# "-dirty" behind it where files differ from it. The file is left alone where it says so already.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
  OUTPUT_VARIABLE COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
file(CONFIGURE OUTPUT ${OUT} @ONLY CONTENT [[
namespace moebius {
extern const char* const kBuildCommit;
const char* const kBuildCommit = "@COMMIT@";
}  // namespace moebius
]])
