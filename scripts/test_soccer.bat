@echo off
rem Translate the test folders (segTest, realTest) with the newest checkpoint.
rem Usage: scripts\test_soccer.bat <gpu_id> [data set folder] [up to eight more words of flags]
if "%~1"=="" (
    echo usage: scripts\test_soccer.bat ^<gpu_id^> [data set folder] [more flags] 1>&2
    exit /b 2
)
set "folder=%~2"
rem a word that begins with - is a flag already
if "%folder:~0,1%"=="-" (set "folder=") else shift /2
if "%folder%"=="" set "folder=datasets\soccer"
for %%I in ("%folder%") do (
    set "root=%%~dpI."
    set "name=%%~nxI"
)
python test.py --gpu_ids %~1 --dataset_dir "%root%" --dataset_name "%name%" %2 %3 %4 %5 %6 %7 %8 %9
